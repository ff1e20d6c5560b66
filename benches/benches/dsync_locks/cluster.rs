//! Starts the four server processes and sends them commands.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use crate::command::{self, Mode, ServerCommand};
use crate::table::Measurement;

/// Argument with which this program runs as one of the servers.
pub(crate) const SERVER_FLAG: &str = "--server";

/// Number of lockers, each in a process of its own.
pub(crate) const PROCESSES: usize = 4;

/// The server processes under measurement.
pub(crate) struct Cluster {
    processes: Vec<Process>,
}

impl Cluster {
    /// Starts the processes. Returns when every locker grants locks.
    pub(crate) fn start(mode: Mode) -> Self {
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::start(mode)).collect();
        let urls: Vec<_> = processes.iter_mut().map(Process::read_line).collect();
        for process in &mut processes {
            process.send_line(&urls.join(" "));
        }
        for process in &mut processes {
            assert_eq!(process.read_line(), "open");
        }
        Self { processes }
    }

    /// Runs and times a command in one process.
    pub(crate) fn run_in_one(&mut self, command: ServerCommand) -> Measurement {
        time(&mut self.processes[..1], command)
    }

    /// Runs and times a command in all processes concurrently.
    pub(crate) fn run_in_all(&mut self, command: ServerCommand) -> Measurement {
        time(&mut self.processes, command)
    }
}

fn time(processes: &mut [Process], command: ServerCommand) -> Measurement {
    let start = Instant::now();
    for process in &mut *processes {
        process.send_line(&command.text());
    }
    let responses: Vec<_> = processes.iter_mut().map(Process::read_line).collect();
    let elapsed = start.elapsed();
    let times = responses.iter().flat_map(|line| command::parse_times(line)).collect();
    Measurement::new(times, elapsed)
}

/// A server process. It exits when its standard input is closed, as it is when this process is
/// killed.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout_lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mode: Mode) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.args([SERVER_FLAG, mode.text()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout_lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, stdin, stdout_lines }
    }

    fn send_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the server reads");
    }

    fn read_line(&mut self) -> String {
        self.stdout_lines.next().expect("the server has not exited").expect("a line")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killing a process that has exited fails; it is then only reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
