//! What a command line asks for. What can be seen to be wrong here is not sent.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use iam_bootstrap::model::{Description, Secret, Status, UtcMillis};
use iam_bootstrap::policy::Policy;
use rand::RngExt;

use super::IamError;
use super::wire::{
    AddServiceAccount, AddUser, Attach, IsAllowed, Nothing, OfGroup, OfPolicy, OfServiceAccount,
    OfUser, Request, SetGroup, SetPolicy, Whom,
};
use crate::cli::{
    Attachment, GroupCommand, IamCommand, PolicyCommand, ServiceAccountCommand, UserCommand,
};
use crate::secret;

/// Largest policy that is read, in bytes: some file that is larger is none.
const POLICY_BYTES_MAX: u64 = 256 * 1024;

/// Characters of a secret that is made here: 40 of 64 are 240 bits.
const MADE_CHARACTERS: usize = 40;

/// Those that it is made of: each is six bits, and none needs quoting.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A request, and the secret that was made for it.
pub(super) struct Made {
    pub(super) request: Request,
    pub(super) secret: Option<Secret>,
}

impl Made {
    pub(super) fn of(command: &IamCommand) -> Result<Self, IamError> {
        match command {
            IamCommand::User(UserCommand::Add { user, new_secret_file, replace, disabled }) => {
                let (secret, made) = new_secret(new_secret_file.as_deref())?;
                let (user, replace, status) = (user.clone(), *replace, status(*disabled));
                let request = Request::AddUser(AddUser { user, secret, replace, status });
                Ok(Self { request, secret: made })
            }
            IamCommand::ServiceAccount(command @ ServiceAccountCommand::Add { .. }) => {
                add_service_account(command)
            }
            command => Ok(Self { request: plain(command)?, secret: None }),
        }
    }
}

fn status(is_disabled: bool) -> Status {
    match is_disabled {
        true => Status::Disabled,
        false => Status::Enabled,
    }
}

/// Those that need no secret.
fn plain(command: &IamCommand) -> Result<Request, IamError> {
    Ok(match command {
        IamCommand::User(UserCommand::List | UserCommand::Add { .. }) => {
            Request::ListUsers(Nothing {})
        }
        IamCommand::User(UserCommand::Remove { user }) => {
            Request::RemoveUser(OfUser { user: user.clone() })
        }
        IamCommand::Policy(PolicyCommand::Set { policy, document }) => {
            Request::SetPolicy(SetPolicy {
                policy: policy.clone(),
                document: read_policy(document)?,
            })
        }
        IamCommand::Policy(PolicyCommand::List) => Request::ListPolicies(Nothing {}),
        IamCommand::Policy(PolicyCommand::Remove { policy }) => {
            Request::RemovePolicy(OfPolicy { policy: policy.clone() })
        }
        IamCommand::Policy(PolicyCommand::Attach(attachment)) => {
            Request::AttachPolicy(attach(attachment)?)
        }
        IamCommand::Policy(PolicyCommand::Detach(attachment)) => {
            Request::DetachPolicy(attach(attachment)?)
        }
        IamCommand::ServiceAccount(
            ServiceAccountCommand::List | ServiceAccountCommand::Add { .. },
        ) => Request::ListServiceAccounts(Nothing {}),
        IamCommand::ServiceAccount(ServiceAccountCommand::Remove { key }) => {
            Request::RemoveServiceAccount(OfServiceAccount { access_key: key.clone() })
        }
        IamCommand::Group(GroupCommand::Set { group, members, disabled }) => {
            let (group, members, status) = (group.clone(), members.clone(), status(*disabled));
            Request::SetGroup(SetGroup { group, members, status })
        }
        IamCommand::Group(GroupCommand::List) => Request::ListGroups(Nothing {}),
        IamCommand::Group(GroupCommand::Remove { group }) => {
            Request::RemoveGroup(OfGroup { group: group.clone() })
        }
        IamCommand::Whoami => Request::WhoAmI(Nothing {}),
        IamCommand::IsAllowed { user, action, resource } => Request::IsAllowed(IsAllowed {
            access_key: user.clone(),
            action: action.clone(),
            resource: resource.clone(),
        }),
    })
}

fn attach(attachment: &Attachment) -> Result<Attach, IamError> {
    let Attachment { policy, user, group } = attachment;
    let to = match (user, group) {
        (Some(user), None) => Whom::User(user.clone()),
        (None, Some(group)) => Whom::Group(group.clone()),
        _ => return Err(IamError::Given("give either --user or --group".to_owned())),
    };
    Ok(Attach { policy: policy.clone(), to })
}

fn add_service_account(command: &ServiceAccountCommand) -> Result<Made, IamError> {
    let ServiceAccountCommand::Add {
        key,
        parent,
        new_secret_file,
        session_policy,
        expires,
        description,
    } = command
    else {
        return Err(IamError::Given("no service account is to be added".to_owned()));
    };
    let (secret, made) = new_secret(new_secret_file.as_deref())?;
    let millis = |expires: &humantime::Timestamp| {
        let since = expires.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UtcMillis::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    let description = Description::new(description);
    let request = Request::AddServiceAccount(AddServiceAccount {
        access_key: key.clone(),
        secret,
        parent: parent.clone(),
        session_policy: session_policy.as_deref().map(read_policy).transpose()?,
        expires_at: expires.as_ref().map(millis),
        description: description.map_err(|error| IamError::Given(error.to_string()))?,
    });
    Ok(Made { request, secret: made })
}

/// The secret in the file, or a new one, which has to be shown.
fn new_secret(path: Option<&Path>) -> Result<(Secret, Option<Secret>), IamError> {
    let Some(path) = path else {
        let made = make_secret();
        let made = made.map_err(|error| IamError::Given(error.to_string()))?;
        return Ok((made.clone(), Some(made)));
    };
    let wrong = |problem: String| IamError::SecretFile { path: path.to_owned(), problem };
    let bytes = secret::read(path).map_err(wrong)?;
    let text =
        std::str::from_utf8(bytes.expose()).map_err(|_| wrong("it is no text".to_owned()))?;
    let secret = Secret::new(text);
    let secret = secret.map_err(|error| IamError::NewSecret { path: path.to_owned(), error })?;
    Ok((secret, None))
}

fn make_secret() -> Result<Secret, iam_bootstrap::model::SecretError> {
    let mut rng = rand::rng();
    let text: String =
        (0..MADE_CHARACTERS).map(|_| char::from(ALPHABET[rng.random_range(0..64)])).collect();
    Secret::new(&text)
}

/// The text of a policy that is one.
fn read_policy(path: &Path) -> Result<String, IamError> {
    let file = |cause| IamError::File { path: path.to_owned(), cause };
    let opened = File::open(path).map_err(file)?;
    let mut text = String::new();
    let bytes = opened.take(POLICY_BYTES_MAX + 1).read_to_string(&mut text).map_err(file)?;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    if bytes > POLICY_BYTES_MAX {
        return Err(IamError::TooLarge { path: path.to_owned(), bytes, max: POLICY_BYTES_MAX });
    }
    match Policy::parse(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(error) => Err(IamError::Policy { path: path.to_owned(), problem: error.to_string() }),
    }
}
