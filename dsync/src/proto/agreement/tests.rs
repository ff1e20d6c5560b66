use super::*;
use crate::limits::CLOCK_RATE_ERROR_PPM;

mod random;

const LEASE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits::with_lease(LEASE)
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn name(node: usize) -> Arc<str> {
    format!("n{node}").into()
}

fn hashes(lockers: &[&str], servers: &[&str]) -> ListHashes {
    ListHashes::of(lockers.iter().copied(), servers.iter().copied(), LEASE)
}

const SERVERS: [&str; 5] = ["n0", "n1", "n2", "n3", "n4"];

/// The agreement of n0 among so many servers, with all of them as lockers.
fn agreement(servers: usize) -> Agreement {
    let others = (1..servers).map(name).collect();
    let hashes = hashes(&SERVERS[..servers], &SERVERS[..servers]);
    Agreement::new(AgreementConfig::new(others, hashes, &limits()), at(0))
}

fn report(agreement: &mut Agreement, node: usize, up_for: u64, sent_at: u64) -> NodeChange {
    let report = NodeReport::Hashes {
        hashes: agreement.hashes(),
        process: node as u64 + 1,
        up_for: Duration::from_secs(up_for),
    };
    agreement.handle_report(&name(node), report, at(sent_at), at(sent_at))
}

fn report_list(agreement: &mut Agreement, node: usize, lockers: &[&str], sent_at: u64) {
    let servers = &SERVERS[..agreement.nodes.len() + 1];
    let report = NodeReport::Hashes {
        hashes: hashes(lockers, servers),
        process: 99,
        up_for: Duration::from_secs(1_000),
    };
    let _ = agreement.handle_report(&name(node), report, at(sent_at), at(sent_at));
}

fn is_open(agreement: &Agreement, seconds: u64) -> bool {
    agreement.open_until(at(seconds)).is_ok()
}

#[test]
fn b64_hashes_differ_by_lockers_servers_and_lease() {
    let base = hashes(&["a", "b"], &["a", "b", "c"]);
    assert_eq!(base, hashes(&["a", "b"], &["a", "b", "c"]));
    let fewer = hashes(&["a"], &["a", "b", "c"]);
    assert!(fewer.list != base.list && fewer.servers == base.servers);
    let other = hashes(&["a", "b"], &["a", "b", "d"]);
    assert!(other.list != base.list && other.servers != base.servers);
    let longer = ListHashes::of(["a", "b"], ["a", "b", "c"], 2 * LEASE);
    assert!(longer.list != base.list && longer.servers == base.servers);
    assert_ne!(hashes(&["ab"], &["ab"]).servers, hashes(&["a", "b"], &["a", "b"]).servers);
    assert_ne!(base.list, hashes(&["a", "b", "c"], &["a", "b"]).list);
}

#[test]
fn b65_a_server_alone_agrees_with_itself_for_ever() {
    assert_eq!(agreement(1).open_until(at(0)), Ok(FOREVER));
}

#[test]
fn b65_a_full_agreement_opens_at_once_and_fewer_servers_after_one_and_a_half_leases() {
    let mut three = agreement(3);
    report(&mut three, 1, 1, 1);
    let reason = three.open_until(at(1)).expect_err("one is missing, and the others are unsettled");
    insta::assert_snapshot!(reason.to_string(), @"servers have started lately, and locks of an earlier list of lockers may be held: they end within 91.4s, or once all servers run with the same list; missing: n2");
    report(&mut three, 2, 1, 2);
    assert_eq!(three.open_until(at(2)), Ok(at(32)), "half a lease after the later query");

    let mut two_of_three = agreement(3);
    report(&mut two_of_three, 1, 100, 80);
    assert!(!is_open(&two_of_three, 92), "this server itself has not been up for long enough");
    assert!(is_open(&two_of_three, 93));
    let mut unsettled_peer = agreement(3);
    report(&mut unsettled_peer, 1, 92, 100);
    assert!(!is_open(&unsettled_peer, 100), "the peer has not been up for long enough");
    report(&mut unsettled_peer, 1, 93, 101);
    assert!(is_open(&unsettled_peer, 101));
}

#[test]
fn b65_a_process_that_took_part_in_a_full_agreement_counts_without_the_others() {
    let mut three = agreement(3);
    report(&mut three, 1, 1, 1);
    report(&mut three, 2, 1, 1);
    // n2 is gone, as in a rolling restart.
    report(&mut three, 1, 20, 20);
    assert!(is_open(&three, 40), "n1 is the process that took part");
    let restarted =
        NodeReport::Hashes { hashes: three.hashes(), process: 77, up_for: Duration::from_secs(1) };
    let _ = three.handle_report("n1", restarted, at(41), at(41));
    assert!(!is_open(&three, 41), "n1 has restarted, and n2 is not confirmed");
    report(&mut three, 2, 5, 42);
    assert!(is_open(&three, 42), "all agree again");
}

#[test]
fn b65_confirmations_count_for_half_a_lease_from_when_their_query_was_sent() {
    let mut three = agreement(3);
    let process = |process| NodeReport::Hashes {
        hashes: hashes(&SERVERS[..3], &SERVERS[..3]),
        process,
        up_for: Duration::from_secs(1_000),
    };
    let _ = three.handle_report("n1", process(1), at(100), at(105));
    let _ = three.handle_report("n2", process(2), at(90), at(105));
    assert_eq!(three.open_until(at(105)), Ok(at(130)));
    let _ = three.handle_report("n1", process(1), at(80), at(106));
    assert_eq!(three.open_until(at(106)), Ok(at(130)), "an overtaken report changes nothing");
    let reason = three.open_until(at(130)).expect_err("nothing is confirmed any more");
    insta::assert_snapshot!(reason.to_string(), @"1 of 3 servers are known to run with the list of lockers of this one, 2 must; not confirmed: n1, n2");
}

#[test]
fn b65_one_server_with_another_list_stops_itself_alone() {
    let mut of_the_majority = agreement(3);
    report(&mut of_the_majority, 1, 1_000, 1_000);
    report_list(&mut of_the_majority, 2, &["n2"], 1_000);
    assert!(is_open(&of_the_majority, 1_000));

    let mut outlier = agreement(3);
    for node in [1, 2] {
        report_list(&mut outlier, node, &["n1", "n2"], 1_000);
    }
    let reason = outlier.open_until(at(1_000)).expect_err("it is alone");
    insta::assert_snapshot!(reason.to_string(), @"1 of 3 servers are known to run with the list of lockers of this one, 2 must; with another list or lease: n1, n2");
}

#[test]
fn b65_two_halves_are_both_closed() {
    let mut half = agreement(4);
    report(&mut half, 1, 1_000, 1_000);
    for node in [2, 3] {
        report_list(&mut half, node, &["n2", "n3"], 1_000);
    }
    assert!(!is_open(&half, 1_000));
}

#[test]
fn b65_another_list_of_servers_closes_until_that_server_reports_the_same() {
    let mut three = agreement(3);
    report(&mut three, 1, 1_000, 1_000);
    let other = NodeReport::Hashes {
        hashes: hashes(&["n0", "n1", "n2"], &["n0", "n1", "n2", "n3"]),
        process: 5,
        up_for: Duration::from_secs(1_000),
    };
    let change = three.handle_report("n2", other, at(1_000), at(1_000));
    assert_eq!(change, NodeChange::OtherServers);
    report(&mut three, 1, 1_000_000, 1_000_000);
    let reason = three.open_until(at(1_000_000)).expect_err("its last word");
    insta::assert_snapshot!(reason.to_string(), @"n2 run with another list of servers: start all servers with the same");
    assert_eq!(report(&mut three, 2, 1, 1_000_001), NodeChange::Equal);
    assert!(is_open(&three, 1_000_001));
}

#[test]
fn b65_changes_are_reported_once() {
    let mut three = agreement(3);
    assert_eq!(report(&mut three, 1, 1, 1), NodeChange::None, "as expected");
    let other = |process| NodeReport::Hashes {
        hashes: hashes(&["n1"], &SERVERS[..3]),
        process,
        up_for: Duration::ZERO,
    };
    assert_eq!(three.handle_report("n1", other(5), at(2), at(2)), NodeChange::OtherList);
    assert_eq!(three.handle_report("n1", other(6), at(3), at(3)), NodeChange::None);
    assert_eq!(report(&mut three, 1, 1, 4), NodeChange::Equal);
}

#[test]
fn b59_minio_servers_count_as_servers_with_the_same_list() {
    let mut three = agreement(3);
    let _ = three.handle_report("n1", NodeReport::Plain, at(100), at(100));
    assert!(is_open(&three, 100), "a majority with this server");
    let mut unsettled = agreement(3);
    let _ = unsettled.handle_report("n1", NodeReport::Plain, at(1), at(1));
    assert!(!is_open(&unsettled, 1), "this server is unsettled, and n2 is missing");
    let _ = unsettled.handle_report("n2", NodeReport::Plain, at(1), at(1));
    assert!(is_open(&unsettled, 1));
}

#[test]
fn b65_periods_cover_two_clocks_that_are_wrong_in_opposite_directions() {
    let limits = limits();
    let error = f64::from(CLOCK_RATE_ERROR_PPM) / 1e6;
    let (slow, fast) = (1.0 - error, 1.0 + error);
    // The process that settles has a fast clock; the server that counted its earlier one a slow one.
    let settled = limits.settling_period().as_secs_f64() / fast;
    let counted = limits.confirmation_period().as_secs_f64() / slow;
    let held = limits.validity_period(LEASE).as_secs_f64() / slow;
    assert!(settled > counted + held, "{settled} {counted} {held}");
}
