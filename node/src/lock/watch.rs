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
//! It leads the process group in which the command starts: so the group's id is known before the
//! command runs, is not reused afterwards, and the last signal ends the watchdog too. The command may
//! leave the group, as `timeout` and `setsid` do: then it is signalled with the group that it leads
//! now.

use std::fmt;
use std::io::{self, Stdin};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process_group};

use super::deadlines::{Deadlines, SharedClock, TERMINATE_TIMEOUT, TICK};
use crate::output;
use crate::signals::SurvivedSignals;

/// Name of the subcommand.
pub(super) const SUBCOMMAND: &str = "__watch";

/// Printed once the watchdog survives signals to its process group.
pub(super) const READY: &str = "ready";

/// Longest line that the tool sends, with room to spare.
const LINE_BYTES_MAX: usize = 256;

/// A message of the tool, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// The lock is confirmed.
    Confirmed(Deadlines),
    /// A command is about to be started.
    Started,
    /// The command is this process, in the watchdog's group or not.
    Command(Pid),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed(Deadlines { terminate_at, kill_at }) => {
                write!(f, "confirmed {} {}", terminate_at.0, kill_at.0)
            }
            Self::Started => write!(f, "started"),
            Self::Command(pid) => write!(f, "command {}", pid.as_raw_nonzero()),
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
                Self::Confirmed(Deadlines { terminate_at: clock()?, kill_at: clock()? })
            }
            "started" => Self::Started,
            "command" => Self::Command(Pid::from_raw(words.next()?.parse().ok()?)?),
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
    deadlines: Option<Deadlines>,
    has_tool_ended: bool,
}

impl Watch {
    fn new() -> Self {
        Self { phase: Phase::Idle, deadlines: None, has_tool_ended: false }
    }

    fn handle_confirmed(&mut self, deadlines: Deadlines, now: SharedClock) {
        let accepts = match self.phase {
            Phase::Idle => true,
            // A deadline that has passed is final: the message may be older than a suspend.
            Phase::Watching => self.deadlines.is_some_and(|last| now < last.terminate_at),
            // A command that has its SIGTERM ends, whatever the tool says now.
            Phase::Terminating { .. } | Phase::Killed => false,
        };
        if accepts {
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
        let Deadlines { terminate_at, kill_at } =
            self.deadlines.unwrap_or(Deadlines { terminate_at: now, kill_at: now });
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
    // Each read takes what is there.
    rustix::io::ioctl_fionbio(&input, true)?;
    output::print_line(&READY)?;
    let (mut watch, mut lines) = (Watch::new(), Lines::default());
    let mut command = None;
    let mut is_signalled = false;
    loop {
        while let Some(event) = lines.next(&input)? {
            match event {
                Event::Message(Message::Confirmed(deadlines)) => {
                    watch.handle_confirmed(deadlines, SharedClock::now());
                }
                Event::Message(Message::Started) => watch.handle_started(),
                Event::Message(Message::Command(pid)) => command = Command::open(pid),
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
                send(command.as_ref(), signal);
            }
            Step::End => return Ok(is_signalled),
        }
    }
}

/// Signals the command and its descendants. Ends this process if the signal is SIGKILL.
fn send(command: Option<&Command>, signal: Signal) {
    let signal_group = || {
        // A stopped process handles the signal only once it continues. Errors mean that there is none.
        for signal in [signal, Signal::CONT] {
            let _ = rustix::process::kill_current_process_group(signal);
        }
    };
    match signal {
        Signal::KILL => {
            command.inspect(|command| command.send(signal));
            signal_group();
        }
        // A command that leaves the group just now gets two signals, not none.
        _ => {
            signal_group();
            command.inspect(|command| command.send(signal));
        }
    }
}

/// The command's process, which is not a child of this one.
struct Command {
    pid: Pid,
    handle: ProcessHandle,
}

impl Command {
    /// Opens a running process; `None` if there is none, or the system has no handles of processes:
    /// then only the group is signalled.
    fn open(pid: Pid) -> Option<Self> {
        Some(Self { pid, handle: ProcessHandle::open(pid)? })
    }

    /// Sends a signal to the group that the command leads, or to the command alone if it is in
    /// another group than this process.
    fn send(&self, signal: Signal) {
        for signal in [signal, Signal::CONT] {
            match self.handle.is_reaped() {
                false => self.send_to_process(signal),
                true => self.send_to_rest(signal),
            }
        }
    }

    fn send_to_process(&self, signal: Signal) {
        // Its id is its own. Errors mean that it has just ended.
        let _ = match getpgid(Some(self.pid)) {
            Ok(group) if group == self.pid => kill_process_group(group, signal),
            Ok(group) if group == getpgrp() && signal != Signal::KILL => Ok(()),
            _ => self.handle.send(signal),
        };
    }

    /// Sends a signal to the remaining members of the group that the command led.
    fn send_to_rest(&self, signal: Signal) {
        // While the group has members, no process gets its id. If one has it, there are none.
        if rustix::process::test_kill_process(self.pid) == Err(Errno::SRCH) {
            let _ = kill_process_group(self.pid, signal);
        }
    }
}

/// A handle of a process, which never refers to a later process of the same id.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct ProcessHandle(rustix::fd::OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl ProcessHandle {
    fn open(pid: Pid) -> Option<Self> {
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(pid, flags).ok().map(Self)
    }

    fn send(&self, signal: Signal) -> Result<(), Errno> {
        rustix::process::pidfd_send_signal(&self.0, signal)
    }

    /// Whether another process may have its id. A process that has ended is reaped by its parent,
    /// which the tool is, or which the kernel chooses when the tool has ended.
    fn is_reaped(&self) -> bool {
        self.send(Signal::CONT) == Err(Errno::SRCH)
    }
}

/// The process id: these systems have no handles of processes.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
struct ProcessHandle(Pid);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl ProcessHandle {
    fn open(pid: Pid) -> Option<Self> {
        Some(Self(pid))
    }

    fn send(&self, signal: Signal) -> Result<(), Errno> {
        rustix::process::kill_process(self.0, signal)
    }

    fn is_reaped(&self) -> bool {
        rustix::process::test_kill_process(self.0) == Err(Errno::SRCH)
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

    fn deadlines(terminate: u64, kill: u64) -> Deadlines {
        Deadlines { terminate_at: at(terminate), kill_at: at(kill) }
    }

    /// A watchdog of a command whose lock is confirmed.
    fn watching(terminate: u64, kill: u64) -> Watch {
        let mut watch = Watch::new();
        watch.handle_confirmed(deadlines(terminate, kill), at(0));
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
            [Message::Confirmed(deadlines(1, 2)), Message::Started, Message::Command(pid)]
        {
            assert_eq!(Message::decode(&message.to_string()), Some(message));
            assert_eq!(Message::decode(&format!("{message} 1")), None);
        }
        for line in
            ["", "confirmed", "confirmed 1", "confirmed x 2", "command 0", "command -", "stop"]
        {
            assert_eq!(Message::decode(line), None, "{line:?}");
        }
    }

    #[test]
    fn confirmed_command_is_left_alone() {
        let mut watch = watching(10, 15);
        for now in 0..100 {
            watch.handle_confirmed(deadlines(now + 10, now + 15), at(now));
            assert_waits(&mut watch, at(now));
        }
    }

    #[test]
    fn command_of_a_stopped_tool_is_terminated_and_then_killed() {
        let mut watch = watching(10, 14);
        assert_waits(&mut watch, SharedClock(10 * SECOND - 1));
        assert_eq!(watch.step(at(10)), Step::Signal(Signal::TERM, EndCause::ToolSilent));
        watch.handle_confirmed(deadlines(100, 105), at(10));
        assert_waits(&mut watch, SharedClock(14 * SECOND - 1));
        assert_eq!(watch.step(at(14)), Step::Signal(Signal::KILL, EndCause::ToolSilent));
        assert_eq!(watch.step(at(14)), Step::End);
    }

    #[test]
    fn deadline_that_passed_while_the_machine_was_suspended_is_final() {
        let mut watch = watching(10, 14);
        assert_waits(&mut watch, at(5));
        // The machine is suspended. Confirmations of before and of after it are read.
        for (terminate, kill) in [(60, 64), (660, 664)] {
            watch.handle_confirmed(deadlines(terminate, kill), at(600));
        }
        assert_eq!(watch.step(at(600)), Step::Signal(Signal::TERM, EndCause::ToolSilent));
        assert_eq!(watch.step(at(600)), Step::Signal(Signal::KILL, EndCause::ToolSilent));
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
        watch.handle_confirmed(deadlines(2, 3), at(1));
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
