use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn config(region: &str) -> SystemConfig {
    SystemConfig { arguments: vec![format!("--region={region}")], ..SystemConfig::default() }
}

/// Response of a peer, by its index and the time.
type PeerScript<'a> = &'a dyn Fn(usize, Instant) -> Result<Option<SystemConfig>, Arc<str>>;

struct Simulation {
    verify: Verify,
    now: Instant,
    reports: Vec<(Duration, Report)>,
    requests: Vec<(Duration, usize)>,
}

const LATENCY: Duration = Duration::from_millis(30);

impl Simulation {
    fn new(peers: usize, limit: Option<u64>, seed: u64) -> Self {
        let now = Instant::from_nanos(0);
        let deadline = limit.map(|seconds| now + Duration::from_secs(seconds));
        let config = VerifyConfig { ours: Arc::new(config("east")), peers, deadline, seed };
        let verify = Verify::new(config, now);
        Self { verify, now, reports: Vec::new(), requests: Vec::new() }
    }

    /// Runs for so many seconds, or until it is done. Responses take [`LATENCY`].
    fn run(&mut self, seconds: u64, script: PeerScript<'_>) -> &mut Self {
        let end = self.now + Duration::from_secs(seconds);
        let mut in_flight: Vec<(Instant, usize)> = Vec::new();
        loop {
            self.verify.handle_timeout(self.now);
            while let Some(peer) = self.verify.poll_request(self.now) {
                in_flight.push((self.now + LATENCY, peer));
                self.requests.push((self.now.since(Instant::default()), peer));
                assert!(in_flight.len() <= VERIFY_CONCURRENCY_MAX);
            }
            while let Some(report) = self.verify.poll_report() {
                self.reports.push((self.now.since(Instant::default()), report));
            }
            let response = in_flight.iter().map(|(at, _)| *at).min();
            let Some(next) = self.verify.poll_timeout().into_iter().chain(response).min() else {
                return self;
            };
            if next > end {
                return self;
            }
            assert!(next > self.now || response == Some(next), "it must not spin");
            self.now = next.max(self.now);
            while let Some(index) = in_flight.iter().position(|(at, _)| *at <= self.now) {
                let (_, peer) = in_flight.remove(index);
                self.verify.handle_response(peer, script(peer, self.now), self.now);
            }
        }
    }

    fn reports(&self) -> Vec<&Report> {
        self.reports.iter().map(|(_, report)| report).collect()
    }
}

fn unreachable() -> Result<Option<SystemConfig>, Arc<str>> {
    Err("not connected".into())
}

#[test]
fn b60_half_of_the_peers_must_agree_and_a_single_server_is_verified_at_once() {
    assert_eq!(Simulation::new(0, None, 1).verify.status(), VerifyStatus::Verified);
    for (peers, needed) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (31, 16)] {
        let mut simulation = Simulation::new(peers, None, 1);
        assert_eq!(simulation.verify.tally().needed, needed);
        simulation.run(60, &|peer, _| if peer + 1 < needed { Ok(None) } else { unreachable() });
        assert_eq!(simulation.verify.status(), VerifyStatus::Waiting, "{peers} peers");
        simulation.run(60, &|peer, _| if peer < needed { Ok(None) } else { unreachable() });
        assert_eq!(simulation.verify.status(), VerifyStatus::Verified, "{peers} peers");
    }
}

#[test]
fn b60_two_configurations_never_both_start() {
    for servers in 2..20usize {
        for with_first in 1..servers {
            let is_verified = |with: usize| (with - 1) >= (servers - 1).div_ceil(2);
            assert!(!(is_verified(with_first) && is_verified(servers - with_first)));
        }
    }
}

#[test]
fn b60_cold_start_of_32_servers_spreads_its_requests() {
    let mut at = Vec::new();
    for server in 0..32 {
        let mut simulation = Simulation::new(31, None, server);
        simulation.run(5, &|_, _| Ok(None));
        assert!(simulation.verify.is_done());
        assert_eq!(simulation.requests.len(), 31, "each peer is queried once");
        at.extend(simulation.requests.iter().map(|(at, _)| at.as_millis() / 50));
    }
    let bins: BTreeSet<_> = at.iter().copied().collect();
    let most = bins.iter().map(|bin| at.iter().filter(|at| *at == bin).count()).max();
    assert!(most < Some(32 * 31 / 6), "{most:?} of 992 requests in 50 ms");
}

#[test]
fn b60_unreachable_peers_are_logged_after_twenty_attempts_in_one_line() {
    let mut simulation = Simulation::new(3, None, 7);
    simulation.run(60, &|peer, _| if peer == 0 { Ok(None) } else { unreachable() });
    let attempts = simulation.requests.iter().filter(|(_, peer)| *peer == 1).count();
    assert!((55..=130).contains(&attempts), "{attempts} in a minute");
    assert!((2..=6).contains(&simulation.reports.len()), "{:?}", simulation.reports);
    let (at, first) = &simulation.reports[0];
    assert!((8..=20).contains(&at.as_secs()), "{at:?}");
    let cause: Arc<str> = "not connected".into();
    let peers = vec![(1, Arc::clone(&cause)), (2, cause)];
    assert_eq!(*first, Report::Unreachable { peers, attempts: 20 });
    simulation.run(5, &|_, _| Ok(None));
    assert_eq!(simulation.verify.status(), VerifyStatus::Verified);
}

#[test]
fn b60_differing_peer_is_reported_once_and_again_when_it_changes() {
    let mut simulation = Simulation::new(3, None, 3);
    let agrees_or = |other: &'static str| {
        move |peer: usize, _| match peer {
            0 => Ok(None),
            1 => Ok(Some(config(other))),
            _ => unreachable(),
        }
    };
    let reported = |simulation: &Simulation| {
        simulation
            .reports()
            .into_iter()
            .filter(|report| matches!(report, Report::Differ { .. }))
            .cloned()
            .collect::<Vec<_>>()
    };
    simulation.run(20, &agrees_or("west"));
    let west = difference(&config("east"), &config("west"));
    assert_eq!(reported(&simulation), [Report::Differ { peers: vec![1], difference: west }]);
    simulation.run(20, &agrees_or("north"));
    assert_eq!(reported(&simulation).len(), 2);
    simulation.run(20, &agrees_or("east"));
    assert_eq!(
        simulation.verify.status(),
        VerifyStatus::Verified,
        "full response without a difference agrees"
    );
    assert_eq!(simulation.reports().last(), Some(&&Report::NowAgrees { peer: 1 }));
}

#[test]
fn b60_outlier_reports_itself_and_the_other_servers_start() {
    let mut outlier = Simulation::new(31, Some(30), 5);
    outlier.run(60, &|_, _| Ok(Some(config("west"))));
    assert_eq!(outlier.verify.status(), VerifyStatus::TimedOut);
    let outlier_reports: Vec<_> = outlier
        .reports()
        .into_iter()
        .filter(|report| matches!(report, Report::LocalIsOutlier { .. }))
        .collect();
    assert_eq!(outlier_reports.len(), 1, "{outlier_reports:?}");
    assert!(outlier.verify.tally().is_outlier);
    let named = outlier.reports().into_iter().flat_map(|report| match report {
        Report::Differ { peers, .. } | Report::LocalIsOutlier { peers, .. } => peers.clone(),
        Report::NowAgrees { .. } | Report::Unreachable { .. } | Report::Varies { .. } => Vec::new(),
    });
    let mut named: Vec<_> = named.collect();
    named.sort_unstable();
    assert_eq!(named, (0..31).collect::<Vec<_>>(), "each peer is named once");

    let mut other = Simulation::new(31, None, 6);
    other.run(10, &|peer, _| if peer == 9 { Ok(Some(config("west"))) } else { Ok(None) });
    assert_eq!(other.verify.status(), VerifyStatus::Verified);
    let west = difference(&config("east"), &config("west"));
    assert_eq!(other.reports(), [&Report::Differ { peers: vec![9], difference: west }]);
    assert!(other.verify.is_done() && !other.verify.tally().is_outlier);
}

#[test]
fn b60_peer_with_another_build_agrees_and_is_reported_once() {
    let build = || SystemConfig { version: "2".to_owned(), ..config("east") };
    let mut simulation = Simulation::new(3, None, 5);
    simulation.run(60, &|_, _| Ok(Some(build())));
    let tally = simulation.verify.tally();
    assert_eq!((simulation.verify.status(), tally.agree), (VerifyStatus::Verified, 3));
    assert!(simulation.verify.is_done() && !tally.is_outlier);
    let found = difference(&config("east"), &build());
    let peers = vec![0, 1, 2];
    assert_eq!(simulation.reports(), [&Report::Varies { peers, difference: found.clone() }]);
    assert_eq!(simulation.verify.variations()[2], (2, found));
}

#[test]
fn b60_single_differing_peer_makes_no_outlier() {
    let mut simulation = Simulation::new(1, Some(5), 5);
    simulation.run(10, &|_, _| Ok(Some(config("west"))));
    assert_eq!(simulation.verify.status(), VerifyStatus::TimedOut);
    assert!(
        matches!(simulation.reports()[..], [Report::Differ { .. }]),
        "{:?}",
        simulation.reports
    );
}

#[test]
fn unsolicited_response_changes_nothing() {
    let mut simulation = Simulation::new(1, None, 5);
    simulation.verify.handle_response(0, Ok(None), simulation.now);
    simulation.verify.handle_response(7, Ok(None), simulation.now);
    assert_eq!(simulation.verify.status(), VerifyStatus::Waiting);
}
