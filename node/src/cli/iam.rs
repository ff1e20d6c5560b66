//! The command line of `gridwire iam`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use grid::Name;
use iam_bootstrap::model::{AccessKey, GroupName, PolicyName, UserName};

use super::timeout;

/// Administers users, groups, policies and service accounts of a running cluster, through any
/// server.
///
/// Exit codes: 0 success (for `is-allowed`: allowed), 1 refused by the server or failed, 2 invalid
/// arguments, 69 server unreachable.
#[derive(Debug, Args)]
pub(crate) struct IamArgs {
    /// Base URL of any server.
    #[arg(long, value_name = "URL", env = "GRIDWIRE_SERVER", global = true)]
    pub(crate) server: Option<Name>,

    /// Access key of the caller: a user's name or a service account's key.
    #[arg(
        long,
        value_name = "KEY",
        env = "GRIDWIRE_ACCESS_KEY",
        global = true,
        default_value = "root"
    )]
    pub(crate) access_key: String,

    /// File with the caller's secret. It is not sent: it signs the requests.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_ACCESS_SECRET_FILE", global = true)]
    pub(crate) secret_file: Option<PathBuf>,

    /// Longest wait for the response: 500ms, 10s, 2m. A server waits up to five seconds for its
    /// peers to apply a change.
    #[arg(
        long, value_name = "DURATION", global = true, default_value = "30s", value_parser = timeout
    )]
    pub(crate) timeout: Duration,

    /// Print the response as one line of JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: IamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IamCommand {
    /// Users, each with its own secret.
    #[command(subcommand)]
    User(UserCommand),
    /// Policies, and the users and groups that they are attached to.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Service accounts: keys that act for a user.
    #[command(subcommand)]
    ServiceAccount(ServiceAccountCommand),
    /// Groups, whose policies apply to all members.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Shows the caller, the server and the deployment.
    Whoami,
    /// Shows whether an access key may do an action, and why.
    IsAllowed {
        /// User name or access key.
        user: String,
        /// Action, such as s3:GetObject.
        action: String,
        /// Resource, such as arn:aws:s3:::photos/a.jpg.
        resource: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user.
    Add {
        user: UserName,
        /// File with the user's secret; without it, a secret is generated and printed.
        #[arg(long, value_name = "FILE")]
        new_secret_file: Option<PathBuf>,
        /// Set this secret also if the user exists.
        #[arg(long)]
        replace: bool,
        /// Create the user disabled: it is denied everything.
        #[arg(long)]
        disabled: bool,
    },
    /// Lists all users.
    List,
    /// Removes a user, its service accounts, policy attachments and group memberships.
    Remove { user: UserName },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Creates or replaces a policy.
    Set {
        policy: PolicyName,
        /// File with the policy's JSON.
        #[arg(value_name = "FILE")]
        document: PathBuf,
    },
    /// Lists all policies.
    List,
    /// Removes a policy that is not attached.
    Remove { policy: PolicyName },
    /// Attaches a policy to a user or a group.
    Attach(Attachment),
    /// Detaches a policy from a user or a group.
    Detach(Attachment),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("principal").args(["user", "group"]).required(true)))]
pub(crate) struct Attachment {
    pub(crate) policy: PolicyName,
    /// The user to attach to or detach from.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<UserName>,
    /// The group to attach to or detach from.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<GroupName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAccountCommand {
    /// Adds a service account: a key with at most its user's permissions.
    Add {
        /// Access key id: the public counterpart of the secret.
        key: AccessKey,
        /// User that the account acts for; default the caller.
        #[arg(long, value_name = "USER")]
        parent: Option<UserName>,
        /// File with the secret half; without it, a secret is generated and printed.
        #[arg(long, value_name = "FILE")]
        new_secret_file: Option<PathBuf>,
        /// File with a policy that restricts the account further.
        #[arg(long, value_name = "FILE")]
        session_policy: Option<PathBuf>,
        /// Time from which the account is denied everything: 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<humantime::Timestamp>,
        /// Purpose of the account.
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
    /// Creates or replaces a group.
    Set {
        group: GroupName,
        /// Members of the group.
        members: Vec<UserName>,
        /// Disable the group: its policies do not apply.
        #[arg(long)]
        disabled: bool,
    },
    /// Lists all groups.
    List,
    /// Removes a group.
    Remove { group: GroupName },
}
