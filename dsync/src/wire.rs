//! What travels between lockers and those who ask them: msgpack maps, as existing clusters have them,
//! with some fields of our own (PROTOCOL.md, "Locks").

use std::sync::Arc;
use std::time::Duration;

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use crate::limits::{LEASE, TEXT_BYTES_MAX};
use crate::proto::hold::{Answer, Message};
use crate::proto::names::Names;
use crate::proto::quorum::Kind;
use crate::proto::table::{
    Ask, Forced, GrantInfo, Granted, Holding, Lesson, Refresh, Refreshed, Refusal, WaiterInfo,
};
use crate::proto::token::{Stamp, Token};
use crate::proto::waiters::Place;

/// Grants a write lock.
pub const LOCK: SingleHandler<LockArgs, LockAnswer> = SingleHandler::new(HandlerId::new(1), "Lock");
/// Grants a read lock.
pub const READ_LOCK: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(2), "RLock");
/// Releases a write lock.
pub const UNLOCK: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(3), "Unlock");
/// Releases a read lock.
pub const READ_UNLOCK: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(4), "RUnlock");
/// Keeps a lock for another lease.
pub const REFRESH: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(5), "Refresh");
/// Forces locks open.
pub const FORCE_UNLOCK: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(6), "ForceUnlock");
/// A locker that has restarted asks a node what it holds.
pub const HOLDINGS: SingleHandler<HoldingsArgs, HoldingsAnswer> =
    SingleHandler::new(HandlerId::new(128), "Holdings");
/// Answers when it is worth trying to lock again.
pub const WAIT: SingleHandler<LockArgs, LockAnswer> =
    SingleHandler::new(HandlerId::new(129), "Wait");
/// Lists what a locker has granted.
pub const LIST: SingleHandler<ListArgs, LockerListing> =
    SingleHandler::new(HandlerId::new(130), "List");
/// A locker tells a holder that its lock was forced open.
pub const REVOKED: SingleHandler<RevokedArgs, ()> =
    SingleHandler::new(HandlerId::new(131), "Revoked");

/// What a locker is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockArgs {
    /// The attempt, and the grant that it gets.
    #[serde(rename = "UID")]
    pub uid: String,
    /// What is to be locked.
    #[serde(rename = "Resources")]
    pub resources: Option<Vec<String>>,
    /// The server that asks.
    #[serde(rename = "Owner")]
    pub owner: String,
    /// Where in its code.
    #[serde(rename = "Source")]
    pub source: String,
    /// How many lockers must grant it.
    #[serde(rename = "Quorum")]
    pub quorum: Option<i64>,
    /// Ours: present where the holder loses a lock that it cannot refresh. All below go with it.
    #[serde(rename = "Leased", skip_serializing_if = "is_default")]
    pub leased: bool,
    /// Ours, for a refresh: whether it is a write lock.
    #[serde(rename = "Write", skip_serializing_if = "is_default")]
    pub write: bool,
    /// Ours: the token that is proposed, or that the lock has.
    #[serde(rename = "Token", skip_serializing_if = "is_default")]
    pub token: Token,
    /// Ours, for a refresh: the token that was proposed when the lock was asked for.
    #[serde(rename = "Proposal", skip_serializing_if = "is_default")]
    pub proposal: Token,
    /// Ours: a waiter's ticket.
    #[serde(rename = "Ticket", skip_serializing_if = "is_default")]
    pub ticket: Token,
    /// Ours: who waits; empty is nobody.
    #[serde(rename = "Waiter", skip_serializing_if = "is_default")]
    pub waiter: String,
    /// Ours, for a refresh: whether the holder is certain of the grant that it wants kept.
    #[serde(rename = "Certain", skip_serializing_if = "is_default")]
    pub certain: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a locker answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockAnswer {
    /// One of the `CODE_` constants.
    #[serde(rename = "Code")]
    pub code: u8,
    /// What went wrong, for a person.
    #[serde(rename = "Err")]
    pub error: String,
    /// Ours: the highest token known for what was locked.
    #[serde(rename = "Token", skip_serializing_if = "is_default")]
    pub token: Token,
    /// Ours: the highest token that the locker knows.
    #[serde(rename = "High", skip_serializing_if = "is_default")]
    pub high: Token,
    /// Ours: what its wall clock shows.
    #[serde(rename = "Wall", skip_serializing_if = "is_default")]
    pub wall: Token,
    /// Ours: for how long a grant stands, in milliseconds.
    #[serde(rename = "Lease", skip_serializing_if = "is_default")]
    pub lease_ms: u64,
    /// Ours: the locker is closed, but has learnt of the lock.
    #[serde(rename = "Taught", skip_serializing_if = "is_default")]
    pub taught: bool,
}

/// Done.
pub const CODE_OK: u8 = 0;
/// Others hold it.
pub const CODE_CONFLICT: u8 = 1;
/// The locker does not grant yet.
pub const CODE_NOT_INITIALISED: u8 = 2;
/// There is no such grant, or the attempt is over.
pub const CODE_NOT_FOUND: u8 = 3;
/// Something else; the text says what.
pub const CODE_ERROR: u8 = 4;

/// What a node is asked by a locker that has restarted: which of its grants the node counts on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldingsArgs {
    /// Where the last answer ended; 0 to begin.
    #[serde(rename = "After")]
    pub after: u64,
}

/// A part of what a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldingsAnswer {
    /// Locks, as they would be refreshed.
    #[serde(rename = "Holdings")]
    pub holdings: Vec<LockArgs>,
    /// The highest token that the node knows.
    #[serde(rename = "High")]
    pub high: Token,
    /// Where to go on; 0 if this is all.
    #[serde(rename = "Next")]
    pub next: u64,
}

/// Asks for the list of grants and waiters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListArgs {}

/// What one locker has granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockerListing {
    /// The oldest grants, as many as fit.
    pub grants: Vec<GrantInfo>,
    /// The first waiters, as many as fit.
    pub waiters: Vec<WaiterInfo>,
    /// How many grants there are.
    pub grants_total: u64,
    /// How many waiters.
    pub waiters_total: u64,
    /// Whether it grants; if not, it has restarted and does not know yet what it has granted.
    pub is_open: bool,
}

/// A lock was forced open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedArgs {
    /// Its id.
    #[serde(rename = "UID")]
    pub uid: String,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl LockArgs {
    /// As a message travels.
    pub(crate) fn of(message: &Message) -> Self {
        match message {
            Message::Lock(ask) | Message::Wait(ask) => Self::ask(ask),
            Message::Refresh(Refresh { uid, lesson }) => match lesson {
                Some(lesson) => Self::lesson(&lesson.ask, lesson.token, lesson.is_certain),
                None => Self { uid: uid.to_string(), ..Self::default() },
            },
            Message::Unlock { uid, names, kind } => Self {
                uid: uid.to_string(),
                resources: names.as_ref().map(Names::to_vec),
                write: *kind == Kind::Write,
                leased: true,
                ..Self::default()
            },
        }
    }

    fn ask(ask: &Ask) -> Self {
        let place = ask.place.as_ref();
        Self {
            uid: ask.uid.to_string(),
            resources: Some(ask.names.to_vec()),
            owner: ask.owner.to_string(),
            source: ask.source.to_string(),
            quorum: i64::try_from(ask.quorum).ok(),
            leased: true,
            write: ask.kind == Kind::Write,
            token: ask.proposal,
            proposal: Token::default(),
            ticket: place.map(|place| place.ticket).unwrap_or_default(),
            waiter: place.map(|place| place.id.to_string()).unwrap_or_default(),
            certain: false,
        }
    }

    fn lesson(ask: &Ask, token: Token, certain: bool) -> Self {
        Self { token, proposal: ask.proposal, certain, ..Self::ask(ask) }
    }

    /// As a node tells what it holds.
    pub(crate) fn holding(holding: &Holding) -> Self {
        Self::lesson(&holding.ask, holding.token, true)
    }

    fn kind(&self) -> Kind {
        if self.write { Kind::Write } else { Kind::Read }
    }

    /// Whether there is an id, and no text is longer than what a locker keeps.
    ///
    /// # Errors
    ///
    /// What is wrong, in a sentence.
    pub(crate) fn check_texts(&self) -> Result<(), String> {
        let texts = [&self.uid, &self.owner, &self.source, &self.waiter];
        if self.uid.is_empty() || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(format!(
                "a lock needs a UID, and none of its texts may be longer than {TEXT_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    /// What is asked for.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a sentence.
    pub(crate) fn to_ask(&self, kind: Kind) -> Result<Ask, String> {
        let names = self.resources.as_deref().unwrap_or_default();
        let names = Names::new(names).map_err(|error| error.to_string())?;
        self.check_texts()?;
        let has_waited = self.leased && !self.waiter.is_empty();
        let place =
            has_waited.then(|| Place { ticket: self.ticket, id: Arc::from(self.waiter.as_str()) });
        Ok(Ask {
            uid: Arc::from(self.uid.as_str()),
            names,
            kind,
            owner: Arc::from(self.owner.as_str()),
            source: Arc::from(self.source.as_str()),
            quorum: self.quorum.and_then(|quorum| usize::try_from(quorum).ok()).unwrap_or(0),
            proposal: self.token,
            place,
            knows_leases: self.leased,
        })
    }

    /// What is to be released.
    pub(crate) fn to_unlock(&self, kind: Kind) -> Message {
        let uid = Arc::from(self.uid.as_str());
        Message::Unlock { uid, names: None, kind }
    }

    /// What is to be refreshed. A holder of an existing cluster tells only the id.
    pub(crate) fn to_refresh(&self) -> Result<Refresh, String> {
        let lesson = match self.leased {
            true => Some(self.to_lesson()?),
            false => None,
        };
        Ok(Refresh { uid: Arc::from(self.uid.as_str()), lesson })
    }

    fn to_lesson(&self) -> Result<Lesson, String> {
        let ask = Ask { proposal: self.proposal, ..self.to_ask(self.kind())? };
        Ok(Lesson { ask, token: self.token, is_certain: self.certain })
    }

    /// What a node holds.
    pub(crate) fn to_holding(&self) -> Result<Holding, String> {
        let Lesson { ask, token, .. } = self.to_lesson()?;
        Ok(Holding { ask, token })
    }

    /// What is to be forced open: the id if there is one, else each resource.
    pub(crate) fn to_forced(&self) -> Vec<Forced> {
        match self.uid.as_str() {
            "" => {
                let resources = self.resources.clone().unwrap_or_default();
                resources.into_iter().map(Forced::Resource).collect()
            }
            uid => vec![Forced::Uid(uid.to_owned())],
        }
    }

    /// As a request to force something open travels.
    pub(crate) fn forced(what: &Forced) -> Self {
        match what {
            Forced::Uid(uid) => Self { uid: uid.clone(), ..Self::default() },
            Forced::Resource(name) => {
                Self { resources: Some(vec![name.clone()]), ..Self::default() }
            }
        }
    }
}

impl LockAnswer {
    /// As an answer travels.
    pub(crate) fn of(answer: Answer, stamp: Stamp) -> Self {
        let base = Self { high: stamp.high, wall: stamp.wall, ..Self::default() };
        let failed = |code, error: &str| Self { code, error: error.to_owned(), ..base.clone() };
        match answer {
            Answer::Lock(Ok(Granted { token, lease })) => {
                Self { token, lease_ms: millis(lease), ..base }
            }
            Answer::Lock(Err(refusal)) => match refusal {
                Refusal::Conflict => failed(CODE_CONFLICT, "the resource is locked"),
                Refusal::Closed => failed(CODE_NOT_INITIALISED, NOT_YET),
                Refusal::Over => failed(CODE_NOT_FOUND, "the attempt is over"),
                Refusal::Full => failed(CODE_ERROR, "this locker has no room for more"),
            },
            Answer::Refresh(refreshed) => match refreshed {
                Refreshed::Held { lease } => Self { lease_ms: millis(lease), ..base },
                Refreshed::Taught { lease } => Self {
                    lease_ms: millis(lease),
                    taught: true,
                    ..failed(CODE_NOT_INITIALISED, NOT_YET)
                },
                Refreshed::Closed => failed(CODE_NOT_INITIALISED, NOT_YET),
                Refreshed::NotFound => failed(CODE_NOT_FOUND, "there is no such lock"),
            },
            Answer::Released | Answer::Wait { is_called: true } => base,
            Answer::Wait { is_called: false } => failed(CODE_CONFLICT, "not waited for"),
        }
    }

    /// An answer to what cannot be understood.
    pub(crate) fn wrong(error: String) -> Self {
        Self { code: CODE_ERROR, error, ..Self::default() }
    }

    /// What it means as an answer to `message`, and what the locker's clock shows.
    ///
    /// # Errors
    ///
    /// The text of the answer, if it is that something is wrong.
    pub(crate) fn to_answer(&self, message: Asked) -> Result<Answer, String> {
        let lease = match self.lease_ms {
            0 => LEASE, // A locker of an existing cluster.
            ms => Duration::from_millis(ms),
        };
        let wrong = || Err(format!("code {}: {}", self.code, self.error));
        Ok(match (message, self.code) {
            (Asked::Lock, CODE_OK) => Answer::Lock(Ok(Granted { token: self.token, lease })),
            (Asked::Lock, CODE_CONFLICT) => Answer::Lock(Err(Refusal::Conflict)),
            (Asked::Lock, CODE_NOT_INITIALISED) => Answer::Lock(Err(Refusal::Closed)),
            (Asked::Lock, CODE_NOT_FOUND) => Answer::Lock(Err(Refusal::Over)),
            (Asked::Lock, CODE_ERROR) => Answer::Lock(Err(Refusal::Full)),
            (Asked::Refresh, CODE_OK) => Answer::Refresh(Refreshed::Held { lease }),
            (Asked::Refresh, CODE_NOT_INITIALISED) if self.taught => {
                Answer::Refresh(Refreshed::Taught { lease })
            }
            (Asked::Refresh, CODE_NOT_INITIALISED) => Answer::Refresh(Refreshed::Closed),
            (Asked::Refresh, CODE_NOT_FOUND) => Answer::Refresh(Refreshed::NotFound),
            (Asked::Unlock, CODE_OK | CODE_NOT_FOUND) => Answer::Released,
            (Asked::Wait, CODE_OK) => Answer::Wait { is_called: true },
            (Asked::Wait, CODE_CONFLICT) => Answer::Wait { is_called: false },
            _ => return wrong(),
        })
    }

    /// What the locker tells of tokens, where it is one of ours.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let stamp = Stamp { high: self.high, wall: self.wall };
        (stamp != Stamp::default()).then_some(stamp)
    }
}

const NOT_YET: &str = "this locker has restarted and does not know yet what it has granted";

/// What was asked, as far as the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Lock,
    Refresh,
    Unlock,
    Wait,
}

impl From<&Message> for Asked {
    fn from(message: &Message) -> Self {
        match message {
            Message::Lock(_) => Self::Lock,
            Message::Refresh(_) => Self::Refresh,
            Message::Unlock { .. } => Self::Unlock,
            Message::Wait(_) => Self::Wait,
        }
    }
}
