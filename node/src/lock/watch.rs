//! The watchdog: a process that ends the command when the tool no longer can.
//!
//! The tool reports each confirmation of the lock through a pipe. When none arrives in time, because
//! the tool is stopped, or when the pipe ends, because the tool is dead, the watchdog signals the
//! command.
//!
//! ```text
//!            started              no confirmation in time,        kill_at
//!   Idle ──────────────► Watching ─────────────────────► Terminating ──────────► Killed
//!     │ the tool ends             or the tool ends: SIGTERM             SIGKILL
//!     └──► end
//! ```
//!
//! It leads the process group in which the command runs: so the group's id is known before the
//! command runs, is not reused afterwards, and the last signal ends the watchdog too.

use std::fmt;
use std::io::{self, Stdin};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::deadlines::{SharedClock, SharedDeadlines, TERMINATE_TIMEOUT};
use crate::output;
use crate::signals::SurvivedSignals;

/// Name of the subcommand.
pub(super) const SUBCOMMAND: &str = "__watch";

/// Printed once the watchdog survives signals to its process group.
pub(super) const READY: &str = "ready";

/// Longest sleep. The clock of the deadlines advances while the machine is suspended, that of a
/// sleep does not.
const TICK: Duration = Duration::from_millis(250);

/// Longest line that the tool sends, with room to spare.
const LINE_BYTES_MAX: usize = 256;

/// A message of the tool, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// The lock is confirmed.
    Confirmed(SharedDeadlines),
    /// A command is about to be started.
    Started,
    /// The command is this process alone: it is not in the watchdog's group.
    Process(Pid),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed(SharedDeadlines { terminate_at, kill_at }) => {
                write!(f, "confirmed {} {}", terminate_at.0, kill_at.0)
            }
            Self::Started => write!(f, "started"),
            Self::Process(pid) => write!(f, "process {}", pid.as_raw_nonzero()),
        }
    }
}

impl Message {
    /// Decodes a line; `None` for anything else than a message.
    fn decode(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let message = match words.next()? {
            "confirmed" => {
                let mut clock = || words.next()?.parse().ok().map(SharedClock);
                Self::Confirmed(SharedDeadlines { terminate_at: clock()?, kill_at: clock()? })
            }
            "started" => Self::Started,
            "process" => Self::Process(Pid::from_raw(words.next()?.parse().ok()?)?),
            _ => return None,
        };
        words.next().is_none().then_some(message)
    }
}

/// What the watchdog does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Waits for a message, at most this long.
    Wait(Duration),
    /// Signals the command.
    Signal(Signal, EndCause),
    /// Ends: the command has its last signal, or was never started.
    End,
}

/// Why the watchdog ends the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndCause {
    ToolEnded,
    ToolSilent,
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToolEnded => write!(f, "the tool that held the lock was killed"),
            Self::ToolSilent => {
                write!(f, "the tool was stopped, and did not confirm the lock in time")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Watching,
    Terminating { kill_at: SharedClock, cause: EndCause },
    Killed,
}

/// The watchdog's state machine.
#[derive(Debug)]
struct Watch {
    phase: Phase,
    deadlines: Option<SharedDeadlines>,
    has_tool_ended: bool,
}

impl Watch {
    fn new() -> Self {
        Self { phase: Phase::Idle, deadlines: None, has_tool_ended: false }
    }

    fn handle_confirmed(&mut self, deadlines: SharedDeadlines) {
        // A command that has its SIGTERM ends, whatever the tool says now.
        if matches!(self.phase, Phase::Idle | Phase::Watching) {
            self.deadlines = Some(deadlines);
        }
    }

    fn handle_started(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Watching;
        }
    }

    fn handle_tool_ended(&mut self) {
        self.has_tool_ended = true;
    }

    fn step(&mut self, now: SharedClock) -> Step {
        let step = match self.phase {
            Phase::Idle if self.has_tool_ended => Step::End,
            Phase::Idle => Step::Wait(TICK),
            Phase::Watching => self.watch(now),
            Phase::Terminating { kill_at, cause } if now >= kill_at => {
                self.phase = Phase::Killed;
                Step::Signal(Signal::KILL, cause)
            }
            Phase::Terminating { kill_at, .. } => Step::Wait(kill_at.since(now)),
            Phase::Killed => Step::End,
        };
        match step {
            // At least a millisecond, the resolution of a poll.
            Step::Wait(duration) => Step::Wait(duration.clamp(Duration::from_millis(1), TICK)),
            step => step,
        }
    }

    fn watch(&mut self, now: SharedClock) -> Step {
        // Without a confirmation, nothing may run.
        let SharedDeadlines { terminate_at, kill_at } =
            self.deadlines.unwrap_or(SharedDeadlines { terminate_at: now, kill_at: now });
        let cause = match (self.has_tool_ended, now >= terminate_at) {
            (true, _) => EndCause::ToolEnded,
            (false, true) => EndCause::ToolSilent,
            (false, false) => return Step::Wait(terminate_at.since(now)),
        };
        let kill_at = kill_at.min(now.after(TERMINATE_TIMEOUT));
        self.phase = Phase::Terminating { kill_at, cause };
        Step::Signal(Signal::TERM, cause)
    }
}

/// Watches until the tool or the command has ended. Returns whether the command was signalled.
pub(crate) fn run() -> io::Result<bool> {
    let _signals = SurvivedSignals::new()?;
    let input = io::stdin();
    // Each read takes what is there: after this process was stopped, messages have priority over
    // deadlines.
    rustix::io::ioctl_fionbio(&input, true)?;
    output::print_line(&READY)?;
    let (mut watch, mut lines) = (Watch::new(), Lines::default());
    let mut target = Target::Group;
    let mut is_signalled = false;
    loop {
        while let Some(event) = lines.next(&input)? {
            match event {
                Event::Message(Message::Confirmed(deadlines)) => watch.handle_confirmed(deadlines),
                Event::Message(Message::Started) => watch.handle_started(),
                Event::Message(Message::Process(pid)) => target = Target::process(pid)?,
                Event::ToolEnded => watch.handle_tool_ended(),
            }
        }
        match watch.step(SharedClock::now()) {
            Step::Wait(duration) if watch.has_tool_ended => std::thread::sleep(duration),
            Step::Wait(duration) => wait_input(&input, duration)?,
            Step::Signal(signal, cause) => {
                if !is_signalled {
                    output::print_error(&format_args!("{cause}: its command is terminated"));
                }
                is_signalled = true;
                target.send(signal);
            }
            Step::End => return Ok(is_signalled),
        }
    }
}

/// The processes that get the signals.
enum Target {
    /// The watchdog's own group, and thus itself.
    Group,
    /// One process, in another group.
    Process(ProcessHandle),
}

/// A process. On Linux the handle never refers to a later process of the same id.
#[cfg(any(target_os = "linux", target_os = "android"))]
type ProcessHandle = rustix::fd::OwnedFd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
type ProcessHandle = Pid;

impl Target {
    fn process(pid: Pid) -> io::Result<Self> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let handle = Ok::<_, Errno>(pid);
        Ok(Self::Process(handle?))
    }

    /// Sends a signal, and wakes processes that are stopped. Errors mean that there are none.
    fn send(&self, signal: Signal) {
        for signal in [signal, Signal::CONT] {
            let _ = match self {
                Self::Group => rustix::process::kill_current_process_group(signal),
                #[cfg(any(target_os = "linux", target_os = "android"))]
                Self::Process(handle) => rustix::process::pidfd_send_signal(handle, signal),
                #[cfg(not(any(target_os = "linux", target_os = "android")))]
                Self::Process(pid) => rustix::process::kill_process(*pid, signal),
            };
        }
    }
}

/// What the pipe from the tool has.
enum Event {
    Message(Message),
    /// The pipe has ended, and with it the tool.
    ToolEnded,
}

/// The lines that were received.
#[derive(Default)]
struct Lines {
    received: Vec<u8>,
    is_ended: bool,
}

impl Lines {
    /// Returns the next event; `None` if there is none now. Never blocks.
    fn next(&mut self, input: &Stdin) -> io::Result<Option<Event>> {
        while !self.is_ended {
            if let Some(line) = self.take_line() {
                if let Some(message) = Message::decode(&line) {
                    return Ok(Some(Event::Message(message)));
                }
                continue;
            }
            let mut chunk = [0; LINE_BYTES_MAX];
            match rustix::io::read(input, &mut chunk) {
                Ok(0) => {
                    self.is_ended = true;
                    return Ok(Some(Event::ToolEnded));
                }
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let rest = self.received.split_off(end + 1);
        let line = std::mem::replace(&mut self.received, rest);
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

/// Waits for a message or the end of the pipe, at most this long.
fn wait_input(input: &Stdin, duration: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(duration).map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(input, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> SharedClock {
        SharedClock(seconds * SECOND)
    }

    fn deadlines(terminate: u64, kill: u64) -> SharedDeadlines {
        SharedDeadlines { terminate_at: at(terminate), kill_at: at(kill) }
    }

    /// A watchdog of a command whose lock is confirmed.
    fn watching(terminate: u64, kill: u64) -> Watch {
        let mut watch = Watch::new();
        watch.handle_confirmed(deadlines(terminate, kill));
        watch.handle_started();
        watch
    }

    fn assert_waits(watch: &mut Watch, now: SharedClock) {
        let step = watch.step(now);
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
    }

    #[test]
    fn messages_round_trip_and_other_lines_are_none() {
        let pid = Pid::from_raw(17).expect("not 0");
        for message in
            [Message::Confirmed(deadlines(1, 2)), Message::Started, Message::Process(pid)]
        {
            assert_eq!(Message::decode(&message.to_string()), Some(message));
            assert_eq!(Message::decode(&format!("{message} 1")), None);
        }
        for line in
            ["", "confirmed", "confirmed 1", "confirmed x 2", "process 0", "process -", "stop"]
        {
            assert_eq!(Message::decode(line), None, "{line:?}");
        }
    }

    #[test]
    fn confirmed_command_is_left_alone() {
        let mut watch = watching(10, 15);
        for now in 0..100 {
            watch.handle_confirmed(deadlines(now + 10, now + 15));
            assert_waits(&mut watch, at(now));
        }
    }

    #[test]
    fn command_of_a_stopped_tool_is_terminated_and_then_killed() {
        let mut watch = watching(10, 14);
        assert_waits(&mut watch, SharedClock(10 * SECOND - 1));
        assert_eq!(watch.step(at(10)), Step::Signal(Signal::TERM, EndCause::ToolSilent));
        watch.handle_confirmed(deadlines(100, 105));
        assert_waits(&mut watch, SharedClock(14 * SECOND - 1));
        assert_eq!(watch.step(at(14)), Step::Signal(Signal::KILL, EndCause::ToolSilent));
        assert_eq!(watch.step(at(14)), Step::End);
    }

    #[test]
    fn command_of_a_dead_tool_is_terminated_at_once_and_killed_before_the_lock_ends() {
        for (kill_at, killed_at) in [(60, 6), (3, 3)] {
            let mut watch = watching(50.min(kill_at), kill_at);
            assert_waits(&mut watch, at(1));
            watch.handle_tool_ended();
            assert_eq!(watch.step(at(1)), Step::Signal(Signal::TERM, EndCause::ToolEnded));
            assert_waits(&mut watch, SharedClock(killed_at * SECOND - 1));
            assert_eq!(watch.step(at(killed_at)), Step::Signal(Signal::KILL, EndCause::ToolEnded));
        }
    }

    #[test]
    fn watchdog_without_a_command_signals_nothing() {
        let mut watch = Watch::new();
        assert_waits(&mut watch, at(1));
        watch.handle_confirmed(deadlines(2, 3));
        assert_waits(&mut watch, at(10));
        watch.handle_tool_ended();
        assert_eq!(watch.step(at(10)), Step::End);
    }

    #[test]
    fn command_without_a_confirmation_is_killed() {
        let mut watch = Watch::new();
        watch.handle_started();
        assert_eq!(watch.step(at(1)), Step::Signal(Signal::TERM, EndCause::ToolSilent));
        assert_eq!(watch.step(at(1)), Step::Signal(Signal::KILL, EndCause::ToolSilent));
    }

    #[test]
    fn sleeps_are_short_because_the_machine_may_be_suspended() {
        let mut watch = watching(1_000, 1_005);
        assert_eq!(watch.step(at(1)), Step::Wait(TICK));
        assert_eq!(
            watch.step(SharedClock(1_000 * SECOND - 1)),
            Step::Wait(Duration::from_millis(1))
        );
    }
}
