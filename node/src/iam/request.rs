//! Builds requests from the command line. Invalid arguments are rejected here, before sending.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use iam_bootstrap::model::{Description, Secret, Status, UtcMillis};
use iam_bootstrap::policy::Policy;
use rand::RngExt;

use super::IamError;
use super::wire::{
    AddServiceAccount, AddUser, Attach, Empty, GroupRef, IamRequest, IsAllowed, PolicyRef,
    Principal, ServiceAccountRef, SetGroup, SetPolicy, UserRef,
};
use crate::cli::{
    Attachment, GroupCommand, IamCommand, PolicyCommand, ServiceAccountCommand, UserCommand,
};
use crate::secret;

/// Largest policy file, in bytes. A larger file is most likely not a policy.
const POLICY_BYTES_MAX: u64 = 256 * 1024;

/// Length of a generated secret: 40 characters of 6 bits are 240 bits.
const GENERATED_SECRET_CHARACTERS: usize = 40;

/// Characters of a generated secret: 64, so 6 bits each; none needs quoting.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A request, and the secret that was generated for it.
pub(super) struct PreparedRequest {
    pub(super) request: IamRequest,
    pub(super) secret: Option<Secret>,
}

impl PreparedRequest {
    pub(super) fn of(command: &IamCommand) -> Result<Self, IamError> {
        match command {
            IamCommand::User(UserCommand::Add { user, new_secret_file, replace, disabled }) => {
                let (secret, generated) = new_secret(new_secret_file.as_deref())?;
                let (user, replace, status) = (user.clone(), *replace, status(*disabled));
                let request = IamRequest::AddUser(AddUser { user, secret, replace, status });
                Ok(Self { request, secret: generated })
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

/// Builds a request that needs no secret.
fn plain(command: &IamCommand) -> Result<IamRequest, IamError> {
    Ok(match command {
        IamCommand::User(UserCommand::List | UserCommand::Add { .. }) => {
            IamRequest::ListUsers(Empty {})
        }
        IamCommand::User(UserCommand::Remove { user }) => {
            IamRequest::RemoveUser(UserRef { user: user.clone() })
        }
        IamCommand::Policy(PolicyCommand::Set { policy, document }) => {
            IamRequest::SetPolicy(SetPolicy {
                policy: policy.clone(),
                document: read_policy(document)?,
            })
        }
        IamCommand::Policy(PolicyCommand::List) => IamRequest::ListPolicies(Empty {}),
        IamCommand::Policy(PolicyCommand::Remove { policy }) => {
            IamRequest::RemovePolicy(PolicyRef { policy: policy.clone() })
        }
        IamCommand::Policy(PolicyCommand::Attach(attachment)) => {
            IamRequest::AttachPolicy(attach(attachment)?)
        }
        IamCommand::Policy(PolicyCommand::Detach(attachment)) => {
            IamRequest::DetachPolicy(attach(attachment)?)
        }
        IamCommand::ServiceAccount(
            ServiceAccountCommand::List | ServiceAccountCommand::Add { .. },
        ) => IamRequest::ListServiceAccounts(Empty {}),
        IamCommand::ServiceAccount(ServiceAccountCommand::Remove { key }) => {
            IamRequest::RemoveServiceAccount(ServiceAccountRef { access_key: key.clone() })
        }
        IamCommand::Group(GroupCommand::Set { group, members, disabled }) => {
            let (group, members, status) = (group.clone(), members.clone(), status(*disabled));
            IamRequest::SetGroup(SetGroup { group, members, status })
        }
        IamCommand::Group(GroupCommand::List) => IamRequest::ListGroups(Empty {}),
        IamCommand::Group(GroupCommand::Remove { group }) => {
            IamRequest::RemoveGroup(GroupRef { group: group.clone() })
        }
        IamCommand::Whoami => IamRequest::WhoAmI(Empty {}),
        IamCommand::IsAllowed { user, action, resource } => IamRequest::IsAllowed(IsAllowed {
            access_key: user.clone(),
            action: action.clone(),
            resource: resource.clone(),
        }),
    })
}

fn attach(attachment: &Attachment) -> Result<Attach, IamError> {
    let Attachment { policy, user, group } = attachment;
    let to = match (user, group) {
        (Some(user), None) => Principal::User(user.clone()),
        (None, Some(group)) => Principal::Group(group.clone()),
        _ => return Err(IamError::Given("use either --user or --group".to_owned())),
    };
    Ok(Attach { policy: policy.clone(), to })
}

fn add_service_account(command: &ServiceAccountCommand) -> Result<PreparedRequest, IamError> {
    let ServiceAccountCommand::Add {
        key,
        parent,
        new_secret_file,
        session_policy,
        expires,
        description,
    } = command
    else {
        return Err(IamError::Given("not a command to add a service account".to_owned()));
    };
    let (secret, generated) = new_secret(new_secret_file.as_deref())?;
    let millis = |expires: &humantime::Timestamp| {
        let since = expires.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UtcMillis::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    let description = Description::new(description);
    let request = IamRequest::AddServiceAccount(AddServiceAccount {
        access_key: key.clone(),
        secret,
        parent: parent.clone(),
        session_policy: session_policy.as_deref().map(read_policy).transpose()?,
        expires_at: expires.as_ref().map(millis),
        description: description.map_err(|error| IamError::Given(error.to_string()))?,
    });
    Ok(PreparedRequest { request, secret: generated })
}

/// Reads the secret from the file or generates one, which is returned twice: it must be printed.
fn new_secret(path: Option<&Path>) -> Result<(Secret, Option<Secret>), IamError> {
    let Some(path) = path else {
        let generated = generate_secret();
        let generated = generated.map_err(|error| IamError::Given(error.to_string()))?;
        return Ok((generated.clone(), Some(generated)));
    };
    let invalid = |problem: String| IamError::SecretFile { path: path.to_owned(), problem };
    let bytes = secret::read(path).map_err(invalid)?;
    let text = std::str::from_utf8(bytes.expose())
        .map_err(|_| invalid("it is not UTF-8 text".to_owned()))?;
    let secret = Secret::new(text);
    let secret = secret.map_err(|error| IamError::NewSecret { path: path.to_owned(), error })?;
    Ok((secret, None))
}

fn generate_secret() -> Result<Secret, iam_bootstrap::model::SecretError> {
    let mut rng = rand::rng();
    let text: String = (0..GENERATED_SECRET_CHARACTERS)
        .map(|_| char::from(ALPHABET[rng.random_range(0..64)]))
        .collect();
    Secret::new(&text)
}

/// Reads and validates a policy.
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
