//! The command line of `gridwire iam`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use grid::Name;
use iam_bootstrap::model::{AccessKey, GroupName, PolicyName, UserName};

use super::timeout;

/// Users, groups, policies and service accounts of a running cluster, through any of its servers.
///
/// Exits with 0 if it is done (of `is-allowed`: if it is allowed), with 1 if the server would not or
/// could not, with 2 when something given here is wrong, with 69 if the server cannot be reached.
#[derive(Debug, Args)]
pub(crate) struct IamArgs {
    /// Base URL of any of the servers.
    #[arg(long, value_name = "URL", env = "GRIDWIRE_SERVER", global = true)]
    pub(crate) server: Option<Name>,

    /// Who asks: a user's name or a service account's access key.
    #[arg(
        long,
        value_name = "KEY",
        env = "GRIDWIRE_ACCESS_KEY",
        global = true,
        default_value = "root"
    )]
    pub(crate) access_key: String,

    /// File with the secret of who asks. It is not sent: requests are signed with it.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_ACCESS_SECRET_FILE", global = true)]
    pub(crate) secret_file: Option<PathBuf>,

    /// Longest wait for the answer: 500ms, 10s, 2m. A server waits five seconds for its peers to take
    /// a change.
    #[arg(
        long, value_name = "DURATION", global = true, default_value = "30s", value_parser = timeout
    )]
    pub(crate) timeout: Duration,

    /// Print the answer as one line of JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: IamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IamCommand {
    /// Users, who sign with secrets of their own.
    #[command(subcommand)]
    User(UserCommand),
    /// Policies, and who has them.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Keys for what acts for a user.
    #[command(subcommand)]
    ServiceAccount(ServiceAccountCommand),
    /// Groups, whose policies all their members have.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Tells who asks, and which server and deployment are asked.
    Whoami,
    /// Tells whether somebody may do something, and why.
    IsAllowed {
        /// A user's name or an access key.
        user: String,
        /// Such as s3:GetObject.
        action: String,
        /// Such as arn:aws:s3:::photos/a.jpg.
        resource: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user.
    Add {
        user: UserName,
        /// File with the user's secret; unless given, one is made and printed.
        #[arg(long, value_name = "FILE")]
        new_secret_file: Option<PathBuf>,
        /// Gives a user that is there already this secret.
        #[arg(long)]
        replace: bool,
        /// The user may do nothing yet.
        #[arg(long)]
        disabled: bool,
    },
    /// Lists all users.
    List,
    /// Removes a user, with service accounts, policies and memberships.
    Remove { user: UserName },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Puts a policy in place of the one of this name, if there is one.
    Set {
        policy: PolicyName,
        /// File with the policy's JSON.
        #[arg(value_name = "FILE")]
        document: PathBuf,
    },
    /// Lists all policies.
    List,
    /// Removes a policy that nobody has.
    Remove { policy: PolicyName },
    /// Gives a policy to a user or a group.
    Attach(Attachment),
    /// Takes a policy from a user or a group.
    Detach(Attachment),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").args(["user", "group"]).required(true)))]
pub(crate) struct Attachment {
    pub(crate) policy: PolicyName,
    /// To or from this user.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<UserName>,
    /// To or from this group.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<GroupName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAccountCommand {
    /// Adds keys that may do what their user may.
    Add {
        /// The public half of the keys.
        key: AccessKey,
        /// For whom they act; for who asks, unless given.
        #[arg(long, value_name = "USER")]
        parent: Option<UserName>,
        /// File with the secret half; unless given, one is made and printed.
        #[arg(long, value_name = "FILE")]
        new_secret_file: Option<PathBuf>,
        /// File with a policy that holds them to less.
        #[arg(long, value_name = "FILE")]
        session_policy: Option<PathBuf>,
        /// From when on they may do nothing: 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<humantime::Timestamp>,
        /// What they are for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Lists all service accounts.
    List,
    /// Removes a service account.
    Remove { key: AccessKey },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Puts a group in place of the one of this name, if there is one.
    Set {
        group: GroupName,
        /// Its members.
        members: Vec<UserName>,
        /// It gives its members nothing.
        #[arg(long)]
        disabled: bool,
    },
    /// Lists all groups.
    List,
    /// Removes a group.
    Remove { group: GroupName },
}
