//! The network between clients and lockers, and how a locker executes a request.

use std::sync::Arc;

use dsync::proto::hold::{Failure, Output, Request, Response};
use dsync::proto::table::WaitOutcome;
use dsync::proto::token::TokenStamp;
use dsync::proto::waiters::QueueReport;
use rand::RngExt;

use super::{Event, Locker, Route, World, limits};

impl World {
    pub(super) fn drain(&mut self, client: usize, hold: u64) {
        let (incarnation, limits) = (self.clients[client].incarnation, limits());
        let Some(held) = self.clients[client].holds.get_mut(&hold) else { return };
        let mut out = Vec::new();
        while let Some(output) = held.hold.poll_output() {
            out.push(output);
        }
        for output in out {
            match output {
                Output::Send { rpc, locker, request } => {
                    let route = Route { client, incarnation, hold, locker, rpc };
                    let limit = request.time_limit(&limits);
                    let limit =
                        self.now + u64::try_from(limit.as_nanos()).expect("fits in 64 bits");
                    self.push(limit, Event::Timeout(route));
                    if !self.is_lost(client, locker) {
                        let when = self.now + self.delay();
                        self.push(when, Event::Request(route, request));
                    }
                }
                // Ignored: a request that is in flight may still arrive.
                Output::Cancel { .. } => {}
            }
        }
        self.observe_hold(client, hold);
        let Some(held) = self.clients[client].holds.get(&hold) else { return };
        if let Some(at) = held.hold.poll_timeout() {
            // Timers may be late.
            let late = self.rng.random_range(0..50_000_000);
            let when = self.clients[client].clock.true_time(at) + late;
            self.push(when, Event::Timer { client, incarnation, hold });
        }
    }

    pub(super) fn serve(&mut self, route: Route, request: Request) {
        let locker = &mut self.lockers[route.locker];
        let (now, wall) = (locker.clock.now(self.now), locker.clock.wall(self.now));
        if let Some(plain) = &mut locker.plain {
            let response = plain.handle(&request, now, limits().lease);
            return self.reply(route, response, None);
        }
        let ticket = match &request {
            Request::Lock(request) | Request::Wait(request) => request.ticket.clone(),
            Request::Unlock { waiter, .. } => waiter.as_ref().and_then(|own| own.ticket.clone()),
            Request::Refresh(_) | Request::CancelTicket(_) | Request::PlainUnlock { .. } => None,
        };
        let response = match request {
            Request::Lock(request) => {
                let result = locker.table.lock(&request, now, wall);
                let is_late = result.is_ok() && locker.released.contains(&request.uid);
                assert!(!is_late, "B50: {} is granted after its release", request.uid);
                Some(Response::Lock(result))
            }
            Request::Refresh(refresh) => {
                Some(Response::Refresh(locker.table.refresh(&refresh, now, wall)))
            }
            Request::CancelTicket(ticket) => {
                locker.table.cancel_ticket(&ticket, now);
                Some(Response::Released)
            }
            Request::Unlock { uid, waiter, .. } => {
                locker.table.unlock(&uid, waiter.as_ref(), now, wall);
                locker.released.insert(uid);
                Some(Response::Released)
            }
            Request::PlainUnlock { .. } => None, // No holder of this crate sends it.
            Request::Wait(request) => {
                let is_enqueued = locker.table.wait(&request, now, wall) == WaitOutcome::Enqueued;
                if is_enqueued && let Some(ticket) = &request.ticket {
                    locker.waiting.insert(Arc::clone(&ticket.id), route);
                }
                (!is_enqueued).then_some(Response::Wait { is_notified: false })
            }
        };
        let report = (locker.table.stamp(wall), locker.table.queue_report(ticket.as_ref()));
        if let Some(response) = response {
            self.reply(route, response, Some(report));
        }
        self.deliver_notifications(route.locker);
    }

    pub(super) fn deliver_notifications(&mut self, index: usize) {
        while let Some(ticket) = self.lockers[index].table.poll_notification() {
            let Locker { table, clock, .. } = &self.lockers[index];
            let report = (table.stamp(clock.wall(self.now)), table.queue_report(Some(&ticket)));
            if let Some(route) = self.lockers[index].waiting.remove(&ticket.id) {
                self.reply(route, Response::Wait { is_notified: true }, Some(report));
            }
        }
        let locker = &self.lockers[index];
        if let Some(at) = locker.table.poll_timeout() {
            let when = locker.clock.true_time(at);
            self.push(when, Event::LockerTimer(index));
        }
    }

    pub(super) fn reply(
        &mut self,
        route: Route,
        response: Response,
        report: Option<(TokenStamp, QueueReport)>,
    ) {
        if !self.is_lost(route.client, route.locker) {
            let is_slow =
                self.faults.slow_responses && !self.is_healed && self.rng.random_bool(0.5);
            let slow = if is_slow { self.rng.random_range(0..1_900_000_000) } else { 0 };
            let when = self.now + self.delay() + slow;
            self.push(when, Event::Response(route, response, report));
        }
    }

    pub(super) fn deliver(
        &mut self,
        route: Route,
        response: Result<Response, Failure>,
        report: (Option<TokenStamp>, QueueReport),
    ) {
        let client = &mut self.clients[route.client];
        let now = client.clock.now(self.now);
        if client.incarnation != route.incarnation {
            return;
        }
        if let Some(stamp) = report.0 {
            client.tokens.observe(stamp, now);
        }
        if let Some(held) = client.holds.get_mut(&route.hold) {
            held.hold.handle_response((route.locker, route.rpc), response, report, now);
            self.drain(route.client, route.hold);
        }
    }
}
