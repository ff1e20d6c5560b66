//! A scenario as a storage server would write one: its own handlers, its own tasks, its own checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::{CallError, HandlerId, RequestContext, Route};
use sim::fault::{Hold, PowerLoss, Repair};
use sim::plan::{Fault, Node, Plan};
use sim::world::{Host, Software, World, url};

const DISK_INFO: HandlerId = HandlerId::new(130);

/// Every node returns the name of its disk, and counts the requests.
#[derive(Default)]
struct Disks {
    requests: AtomicU64,
}

struct Server(Arc<Disks>);

impl Software for Server {
    fn install(&self, host: &Host) -> Result<(), Box<dyn std::error::Error>> {
        let disks = Arc::clone(&self.0);
        let name = format!("disk of {}", host.node);
        let handler = move |_: RequestContext, _| {
            disks.requests.fetch_add(1, Ordering::Relaxed);
            let response = name.clone();
            async move { Ok(response.into()) }
        };
        Ok(host.manager.register(Route::new(DISK_INFO).name("DiskInfo"), handler)?)
    }
}

/// Requests the disk of node `of` from node `on`, and returns the result.
fn request_disk(world: &mut World, on: Node, of: Node) -> Option<Result<String, CallError>> {
    let response = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&response);
    let runs = world.spawn(on, move |host| async move {
        let connection = host.manager.connection(&url(of)).expect("a node of the cluster");
        let result = connection.request(DISK_INFO, "").timeout(Duration::from_secs(2)).await;
        let text = result.map(|payload| String::from_utf8_lossy(&payload).into_owned());
        *slot.lock().expect("no panic") = Some(text);
    });
    assert!(runs, "{on} runs");
    let is_complete = |_: &World| response.lock().expect("no panic").is_some();
    world
        .wait_until(Duration::from_secs(3), is_complete)
        .expect("the request ends by its deadline");
    response.lock().expect("no panic").take()
}

#[test]
fn storage_server_runs_its_own_handlers_in_a_world() {
    let disks = Arc::new(Disks::default());
    let software: Arc<dyn Software> = Arc::new(Server(Arc::clone(&disks)));
    let mut world = World::with_software(&Plan::quiet(3), &software);
    world.wait_until(Duration::from_secs(10), World::is_connected).expect("connected");

    let (a, b) = (Node(0), Node(2));
    assert_eq!(request_disk(&mut world, a, b), Some(Ok("disk of node-2".to_owned())));

    world.inject(Fault::Hold(Hold { a, b }));
    let held = request_disk(&mut world, a, b);
    assert!(matches!(held, Some(Err(CallError::DeadlineExceeded { .. }))), "{held:?}");
    world.inject(Fault::Repair(Repair { a, b }));
    assert_eq!(request_disk(&mut world, a, b), Some(Ok("disk of node-2".to_owned())));

    world.inject(Fault::PowerLoss(PowerLoss { node: b }));
    world.run_for(Duration::from_secs(1));
    assert!(!world.spawn(b, |_| async {}), "nothing runs on a node without power");
    world.heal();
    world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
    assert_eq!(request_disk(&mut world, a, b), Some(Ok("disk of node-2".to_owned())));
    // The held request arrived after the link was repaired, when its caller had cancelled it.
    assert!((3..=4).contains(&disks.requests.load(Ordering::Relaxed)));
    assert_eq!(world.end(), [] as [&str; 0], "no panic and no internal error");
}

#[test]
fn panic_or_bug_on_a_node_is_reported() {
    let mut world = World::new(&Plan::quiet(2));
    world.run_for(Duration::from_millis(2));
    assert!(world.spawn(Node(0), |_| async { panic!("of a task") }));
    assert!(world.spawn(Node(1), |_| async { grid::bug!("of another") }));
    world.run_for(Duration::from_millis(5));
    let mut internal_errors = world.internal_errors();
    internal_errors.sort();
    assert_eq!(internal_errors.len(), 2, "{internal_errors:?}");
    assert!(internal_errors[0].contains("of another") && internal_errors[1].contains("of a task"));
}

#[test]
fn plan_is_run_with_the_software_of_a_storage_server() {
    struct Broken;
    impl Software for Broken {
        fn install(&self, _: &Host) -> Result<(), Box<dyn std::error::Error>> {
            tokio::spawn(async { panic!("some task of the server") });
            Ok(())
        }
    }
    let plan = Plan { duration_ms: 1_000, ..Plan::quiet(2) };
    let whole: Arc<dyn Software> = Arc::new(Server(Arc::default()));
    assert_eq!(sim::run::run_with(&plan, &whole, None).violation, None);
    let broken: Arc<dyn Software> = Arc::new(Broken);
    let violation = sim::run::run_with(&plan, &broken, None).violation.expect("it panics");
    assert!(violation.text.contains("some task of the server"), "{violation}");
}
