//! How a world carries faults out.

use std::time::Duration;

use iam_bootstrap::store::memory::Health;

use crate::fault::{ClockWhilePaused, Outage, Target};
use crate::plan::Node;

use super::World;
use super::links::{host, usual_latency};
use super::node::Command;

impl Target for World {
    fn cut(&mut self, a: Node, b: Node) {
        self.links.cut(&self.sim, a, b);
    }

    fn cut_one_way(&mut self, from: Node, to: Node) {
        self.links.cut_one_way(&self.sim, from, to);
    }

    fn hold(&mut self, a: Node, b: Node) {
        self.links.hold(&self.sim, a, b);
    }

    fn set_latency(&mut self, a: Node, b: Node, latency: Duration) {
        self.sim.set_link_latency(host(a), host(b), latency);
        self.slow.push((a, b));
    }

    fn repair(&mut self, a: Node, b: Node) {
        self.links.repair(&self.sim, a, b);
        usual_latency(&self.sim, &self.cluster, a, b);
    }

    fn repair_all(&mut self) {
        for (a, b) in self.links.faulty() {
            self.links.repair(&self.sim, a, b);
        }
    }

    fn restore_latencies(&mut self) {
        for (a, b) in std::mem::take(&mut self.slow) {
            usual_latency(&self.sim, &self.cluster, a, b);
        }
    }

    /// Removes the process without notice to its peers: no FIN and no RST leaves the node.
    fn power_off(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        let Some(incarnation) = shared.take_incarnation() else { return };
        incarnation.recorder.mute();
        self.links.isolate(&self.sim, node, self.cluster.nodes);
        shared.clock.end();
        self.sim.crash(host(node));
        drop(incarnation);
        self.links.forget_pause(node);
        shared.clock.resume(self.sim.elapsed(), ClockWhilePaused::Ran);
        shared.gate.open();
        self.links.restore(&self.sim, node, self.cluster.nodes);
        self.recorder.crashed(node);
        self.protected.holds.remove_node(node);
    }

    fn power_on(&mut self, node: Node) {
        let has_started = !self.late.iter().any(|(late, _)| *late == node);
        if has_started && self.nodes[node.index()].incarnation().is_none() {
            self.sim.bounce(host(node));
        }
    }

    fn power_on_all(&mut self) {
        for node in (0..self.cluster.nodes).map(Node) {
            self.power_on(node);
        }
    }

    fn bounce(&mut self, node: Node, grace: Duration) {
        self.send(node, Command::Bounce { grace });
    }

    /// Pauses the process. turmoil still polls its runtime, but no segment reaches or leaves it,
    /// its clock is frozen, and its application waits at the gate.
    fn pause(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        if shared.incarnation().is_some() {
            shared.gate.close();
            shared.clock.pause(self.sim.elapsed());
            self.links.pause(&self.sim, node, self.cluster.nodes);
        }
    }

    fn resume(&mut self, node: Node, clock: ClockWhilePaused) {
        let shared = &self.nodes[node.index()];
        shared.clock.resume(self.sim.elapsed(), clock);
        self.links.resume(&self.sim, node, self.cluster.nodes);
        shared.gate.open();
    }

    fn resume_all(&mut self) {
        for node in self.links.paused() {
            self.resume(node, ClockWhilePaused::Ran);
        }
    }

    fn set_skew(&mut self, node: Node, ms: i64) {
        self.nodes[node.index()].clock.set_skew(ms);
    }

    fn correct_wall_clocks(&mut self) {
        for shared in &self.nodes {
            shared.clock.correct_wall_clock();
        }
    }

    fn set_drift(&mut self, node: Node, ppm: i32) {
        self.nodes[node.index()].clock.set_drift(ppm, self.sim.elapsed());
    }

    fn correct_drifts(&mut self) {
        for shared in &self.nodes {
            shared.clock.set_drift(0, self.sim.elapsed());
        }
    }

    fn set_outage(&mut self, node: Node, pool: u8, outage: Option<Outage>) {
        let health = match outage {
            None => Health::Online,
            Some(Outage::NotInitialised) => Health::NotInitialised,
            Some(Outage::Unavailable) => Health::Offline("the run says so".into()),
        };
        if let Some(store) = self.nodes[node.index()].pools.get(usize::from(pool)) {
            store.set_health(health);
        }
    }

    fn restore_pools(&mut self) {
        for pool in self.nodes.iter().flat_map(|shared| &shared.pools) {
            pool.set_health(Health::Online);
        }
    }
}
