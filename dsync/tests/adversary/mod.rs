//! Lockers and holders, and an adversary between them: lost messages, crashes, clocks that drift.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dsync::Limits;
use dsync::proto::hold::{
    AttemptLimit, Failure, Hold, HoldConfig, Request, Response, RpcId, WaitMode,
};
use dsync::proto::quorum::{ListId, LockKind};
use dsync::proto::resources::Resources;
use dsync::proto::table::{ForceTarget, HeldLease, Table};
use dsync::proto::token::{Token, TokenClock, TokenStamp};
use dsync::proto::waiters::QueueReport;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

mod clock;
mod invariants;
mod network;
mod plain;

use clock::Clock;
use invariants::History;
use plain::PlainTable;

/// No scheduling margin: it would mask errors of the drift allowance.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::with_lease(Duration::from_secs(12));
    limits.scheduling_margin = Duration::ZERO;
    limits
}

/// Kind and rate of the faults in one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lockers: usize,
    /// Lockers of the MinIO type among them. They do not crash: a restarted one grants at once.
    pub(crate) plain_lockers: usize,
    pub(crate) clients: usize,
    pub(crate) resources: usize,
    /// Percentage of lost messages.
    pub(crate) loss_percent: u32,
    /// Longest delay of a message, in milliseconds.
    pub(crate) delay_max_ms: u64,
    /// Whether half of the responses take almost as long as their timeout.
    pub(crate) slow_responses: bool,
    /// Steps, of a thousand, in which a locker crashes.
    pub(crate) locker_crashes: u32,
    pub(crate) client_crashes: u32,
    /// Steps, of a thousand, in which a client is partitioned from a locker, or such a partition
    /// heals.
    pub(crate) partitions: u32,
    /// Steps, of a thousand, in which a client with a lock is partitioned from all lockers for
    /// longer than a lease; also the rate, of a thousand, at which a grant is followed by that.
    pub(crate) isolations: u32,
    /// Steps, of a thousand, in which all lockers crash at once.
    pub(crate) total_outages: u32,
    /// Steps, of a thousand, in which a resource is forced open.
    pub(crate) forced_unlocks: u32,
    /// Largest rate error of a clock, in parts per million.
    pub(crate) drift_ppm: u32,
    pub(crate) wait_mode: WaitMode,
}

struct Locker {
    table: Table,
    /// In place of the table, if it is of the MinIO type.
    plain: Option<PlainTable>,
    clock: Clock,
    /// Number of restarts.
    boot: u64,
    started_at: u64,
    /// Attempts that were released here since the boot.
    released: BTreeSet<Arc<str>>,
    /// Waiters with a request in flight, and where to respond.
    waiting: BTreeMap<Arc<str>, Route>,
}

impl Locker {
    fn new(table: Table, clock: Clock, boot: u64, started_at: u64) -> Self {
        let (released, waiting) = (BTreeSet::new(), BTreeMap::new());
        Self { table, plain: None, clock, boot, started_at, released, waiting }
    }
}

struct Client {
    clock: Clock,
    tokens: TokenClock,
    incarnation: u64,
    holds: BTreeMap<u64, Held>,
    partitioned_from: BTreeSet<usize>,
    /// End of its isolation from all lockers.
    isolated_until: u64,
}

struct Held {
    hold: Hold,
    kind: LockKind,
    resources: Resources,
    /// Whether it was held, and with which token.
    held: Option<Option<Token>>,
    /// True time at which its acquisition began.
    started_at: u64,
    id: Arc<str>,
}

/// Destination of a response.
#[derive(Debug, Clone, Copy)]
struct Route {
    client: usize,
    incarnation: u64,
    hold: u64,
    locker: usize,
    rpc: RpcId,
}

enum Event {
    Request(Route, Request),
    /// Without a report from a locker of the MinIO type.
    Response(Route, Response, Option<(TokenStamp, QueueReport)>),
    Timeout(Route),
    Timer {
        client: usize,
        incarnation: u64,
        hold: u64,
    },
    LockerTimer(usize),
    QueryLeases {
        locker: usize,
        boot: u64,
        client: usize,
    },
    Report {
        locker: usize,
        boot: u64,
        client: usize,
        held_leases: Vec<HeldLease>,
        highest: Token,
    },
    Revoked {
        locker: usize,
        client: usize,
        uid: Arc<str>,
    },
    Step,
}

pub(crate) struct World {
    faults: Faults,
    now: u64,
    rng: SmallRng,
    lockers: Vec<Locker>,
    clients: Vec<Client>,
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
    history: BTreeMap<Arc<str>, History>,
    is_healed: bool,
    /// Whether a hold was observed as held since the last check.
    observed_held: bool,
    pub(crate) granted: u64,
    pub(crate) lost: u64,
    pub(crate) second_rounds: u64,
    /// Locks whose quorum needed lockers of the MinIO type.
    pub(crate) without_token: u64,
}

impl World {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = || (0..faults.clients).map(|client| Arc::from(client.to_string()));
        let lockers = (0..faults.lockers)
            .map(|index| {
                let clock = Clock::random(&mut rng, faults.drift_ppm);
                let (now, wall) = (clock.now(0), clock.wall(0));
                let table = Table::new(&limits(), nodes(), now, wall, rng.random());
                let plain = (index < faults.plain_lockers).then(|| PlainTable::new(now));
                Locker { plain, ..Locker::new(table, clock, 0, 0) }
            })
            .collect();
        let clients = (0..faults.clients)
            .map(|_| Client {
                clock: Clock::random(&mut rng, faults.drift_ppm),
                tokens: TokenClock::default(),
                incarnation: 0,
                holds: BTreeMap::new(),
                partitioned_from: BTreeSet::new(),
                isolated_until: 0,
            })
            .collect();
        let mut world = Self {
            faults,
            now: 0,
            rng,
            lockers,
            clients,
            events: BTreeMap::new(),
            next: 0,
            history: BTreeMap::new(),
            is_healed: false,
            observed_held: false,
            granted: 0,
            lost: 0,
            second_rounds: 0,
            without_token: 0,
        };
        for locker in faults.plain_lockers..faults.lockers {
            world.query_all(locker);
        }
        world.push(1_000_000, Event::Step);
        world
    }

    fn push(&mut self, when: u64, event: Event) {
        self.next += 1;
        self.events.insert((when.max(self.now), self.next), event);
    }

    fn delay(&mut self) -> u64 {
        let max = if self.is_healed { 5 } else { self.faults.delay_max_ms };
        // Mostly short, so that some locks are acquired.
        let ms = if self.rng.random_bool(0.8) { max.min(5) } else { max };
        self.rng.random_range(100_000..=1_000_000 * ms.max(1))
    }

    fn is_lost(&mut self, client: usize, locker: usize) -> bool {
        let Client { partitioned_from, isolated_until, .. } = &self.clients[client];
        let is_partitioned = partitioned_from.contains(&locker) || *isolated_until > self.now;
        !self.is_healed
            && (is_partitioned || self.rng.random_range(0..100) < self.faults.loss_percent)
    }

    /// Runs for `ms` milliseconds, checking the invariants after each event.
    pub(crate) fn run(&mut self, ms: u64) {
        let until = self.now + ms * 1_000_000;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.handle(event);
            // No other event can make a lock held.
            if std::mem::take(&mut self.observed_held) {
                self.check();
            }
        }
        self.now = until;
    }

    /// Ends all faults, and starts no more acquisitions.
    pub(crate) fn stop_faults(&mut self) {
        self.is_healed = true;
        for client in &mut self.clients {
            client.partitioned_from.clear();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(route, request) => self.serve(route, request),
            Event::Response(route, response, report) => {
                let report = match report {
                    Some((stamp, queue)) => (Some(stamp), queue),
                    None => (None, QueueReport::default()),
                };
                self.deliver(route, Ok(response), report);
            }
            Event::Timeout(route) => {
                let nothing = (None, QueueReport::default());
                self.deliver(route, Err(Failure { may_have_run: true }), nothing);
            }
            Event::Timer { client, incarnation, hold } => {
                let owner = &mut self.clients[client];
                let now = owner.clock.now(self.now);
                if owner.incarnation == incarnation
                    && let Some(held) = owner.holds.get_mut(&hold)
                {
                    held.hold.handle_timeout(now);
                    self.drain(client, hold);
                }
            }
            Event::LockerTimer(locker) => {
                let now = self.lockers[locker].clock.now(self.now);
                self.lockers[locker].table.handle_timeout(now);
                self.deliver_notifications(locker);
            }
            Event::QueryLeases { locker, boot, client } => self.query_leases(locker, boot, client),
            Event::Report { locker, boot, client, held_leases, highest } => {
                let Locker { clock, boot: current, table, .. } = &mut self.lockers[locker];
                let (now, wall) = (clock.now(self.now), clock.wall(self.now));
                if *current == boot {
                    table.handle_report(&client.to_string(), held_leases, highest, now, wall);
                }
            }
            Event::Revoked { locker, client, uid } => self.revoke(locker, client, &uid),
            Event::Step => self.step(),
        }
    }

    // ---- spontaneous events ----

    fn step(&mut self) {
        let pause = self.rng.random_range(1_000_000..200_000_000);
        self.push(self.now + pause, Event::Step);
        if self.is_healed {
            return;
        }
        let roll = |world: &mut Self| world.rng.random_range(0..1_000);
        if roll(self) < self.faults.locker_crashes {
            let locker = self.rng.random_range(0..self.faults.lockers);
            self.crash_locker(locker);
        }
        let client = self.rng.random_range(0..self.faults.clients);
        if roll(self) < self.faults.client_crashes {
            self.clients[client].incarnation += 1;
            self.clients[client].holds.clear();
            self.clients[client].tokens = TokenClock::default();
        }
        if roll(self) < self.faults.partitions {
            let locker = self.rng.random_range(0..self.faults.lockers);
            if !self.clients[client].partitioned_from.remove(&locker) {
                self.clients[client].partitioned_from.insert(locker);
            }
        }
        if roll(self) < self.faults.total_outages {
            (0..self.faults.lockers).for_each(|locker| self.crash_locker(locker));
        }
        if roll(self) < self.faults.isolations
            && self.clients[client].holds.values().any(|held| held.held.is_some())
        {
            self.isolate(client);
        }
        if roll(self) < self.faults.forced_unlocks {
            self.force();
        }
        match self.rng.random_range(0..3) {
            0 if self.clients[client].holds.len() < 4 => self.begin_lock(client),
            // An isolated client holds its locks as long as it can.
            1 if self.clients[client].isolated_until < self.now => {
                let holds = &self.clients[client].holds;
                let held = holds.iter().filter(|(_, held)| held.held.is_some());
                let ids: Vec<_> = held.map(|(id, _)| *id).collect();
                if !ids.is_empty() {
                    let id = ids[self.rng.random_range(0..ids.len())];
                    self.release(client, id);
                }
            }
            _ => {}
        }
    }

    fn isolate(&mut self, client: usize) {
        let lease = u64::try_from(limits().lease.as_nanos()).expect("fits in 64 bits");
        self.clients[client].isolated_until = self.now + lease * 3 / 2;
    }

    /// Forces the locks of a resource open at the reachable lockers, as an operator does.
    fn force(&mut self) {
        let resource = format!("r{}", self.rng.random_range(0..self.faults.resources));
        for locker in 0..self.faults.lockers {
            if self.rng.random_bool(0.2) {
                continue;
            }
            let now = self.lockers[locker].clock.now(self.now);
            let target = ForceTarget::Resource(resource.clone());
            for (uid, owner) in self.lockers[locker].table.force_unlock(&target, now) {
                let client = owner.parse().expect("owners are numbers");
                if !self.is_lost(client, locker) {
                    let when = self.now + self.delay();
                    self.push(when, Event::Revoked { locker, client, uid });
                }
            }
            self.deliver_notifications(locker);
        }
    }

    /// Delivers a locker's notice to a client that its grant was forced open.
    fn revoke(&mut self, locker: usize, client: usize, uid: &str) {
        let now = self.clients[client].clock.now(self.now);
        let ids: Vec<_> = self.clients[client].holds.keys().copied().collect();
        for id in ids {
            if let Some(held) = self.clients[client].holds.get_mut(&id) {
                held.hold.handle_revoked(locker, uid, now);
                self.drain(client, id);
            }
        }
    }

    fn crash_locker(&mut self, locker: usize) {
        if self.lockers[locker].plain.is_some() {
            return;
        }
        let nodes = (0..self.faults.clients).map(|client| Arc::from(client.to_string()));
        let seed = self.rng.random();
        let Locker { clock, boot, .. } = self.lockers[locker];
        let (now, wall) = (clock.now(self.now), clock.wall(self.now));
        let table = Table::new(&limits(), nodes, now, wall, seed);
        self.lockers[locker] = Locker::new(table, clock, boot + 1, self.now);
        self.query_all(locker);
    }

    fn query_all(&mut self, locker: usize) {
        let boot = self.lockers[locker].boot;
        for client in 0..self.faults.clients {
            let when = self.now + self.delay();
            self.push(when, Event::QueryLeases { locker, boot, client });
        }
    }

    fn query_leases(&mut self, locker: usize, boot: u64, client: usize) {
        if self.lockers[locker].boot != boot {
            return;
        }
        let retry_at = self.now + 200_000_000;
        if !self.is_lost(client, locker) {
            let now = self.clients[client].clock.now(self.now);
            let ids: Vec<_> = self.clients[client].holds.keys().copied().collect();
            let mut held_leases = Vec::new();
            for hold in ids {
                if let Some(held) = self.clients[client].holds.get_mut(&hold) {
                    held_leases.extend(held.hold.void_outstanding(locker, now));
                }
                self.drain(client, hold);
            }
            let highest = self.clients[client].tokens.now(now);
            // Lockers are nodes too, and report what they know.
            let tables = self.lockers.iter().enumerate().filter(|(index, _)| *index != locker);
            let known = tables.map(|(_, other)| other.table.highest_token()).max();
            let highest = highest.max(known.unwrap_or_default());
            if !self.is_lost(client, locker) {
                let when = self.now + self.delay();
                return self
                    .push(when, Event::Report { locker, boot, client, held_leases, highest });
            }
        }
        self.push(retry_at, Event::QueryLeases { locker, boot, client });
    }

    /// Starts an acquisition of a client.
    fn begin_lock(&mut self, client: usize) {
        let kind = if self.rng.random_bool(0.6) { LockKind::Write } else { LockKind::Read };
        let count = if self.rng.random_bool(0.2) { 2 } else { 1 };
        let resources = self.faults.resources;
        let resources = (0..count).map(|_| format!("r{}", self.rng.random_range(0..resources)));
        let resources = Resources::new(resources.collect::<Vec<_>>()).expect("valid names");
        self.next += 1;
        let (number, now) = (self.next, self.clients[client].clock.now(self.now));
        let id: Arc<str> = format!("{client}-{number}").into();
        let config = HoldConfig {
            lockers: self.faults.lockers,
            are_ours: Vec::new(),
            resources: resources.clone(),
            kind,
            owner: client.to_string().into(),
            source: "test".into(),
            list: ListId::default(),
            id: Arc::clone(&id),
            attempt_limit: AttemptLimit::Timeout(Duration::from_secs(30)),
            wait_mode: self.faults.wait_mode,
            limits: limits(),
            seed: self.rng.random(),
        };
        let hold = Hold::new(config, self.clients[client].tokens, now);
        let held = Held { hold, kind, resources, held: None, started_at: self.now, id };
        self.clients[client].holds.insert(number, held);
        self.drain(client, number);
    }

    fn release(&mut self, client: usize, hold: u64) {
        let now = self.clients[client].clock.now(self.now);
        if let Some(held) = self.clients[client].holds.get_mut(&hold) {
            held.hold.release(now);
        }
        self.drain(client, hold);
    }

    /// Releases all locks of all clients.
    pub(crate) fn release_all(&mut self) {
        for client in 0..self.faults.clients {
            let ids: Vec<_> = self.clients[client].holds.keys().copied().collect();
            for id in ids {
                self.release(client, id);
            }
        }
    }
}
