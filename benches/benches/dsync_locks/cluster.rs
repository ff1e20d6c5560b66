//! Four processes that are told what to do, from the side that tells them.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use crate::order::{self, Mode, Order};
use crate::table::Figures;

/// What makes this program one of the servers.
pub(crate) const SERVER_FLAG: &str = "--server";

/// Lockers, each in a process of its own.
pub(crate) const PROCESSES: usize = 4;

/// What is measured.
pub(crate) struct Cluster {
    processes: Vec<Process>,
}

impl Cluster {
    /// Returns when every locker knows that nobody holds anything.
    pub(crate) fn start(mode: Mode) -> Self {
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::start(mode)).collect();
        let urls: Vec<_> = processes.iter_mut().map(Process::answer).collect();
        for process in &mut processes {
            process.tell(&urls.join(" "));
        }
        for process in &mut processes {
            assert_eq!(process.answer(), "open");
        }
        Self { processes }
    }

    /// In one process.
    pub(crate) fn one(&mut self, order: Order) -> Figures {
        time(&mut self.processes[..1], order)
    }

    /// In all of them together.
    pub(crate) fn all(&mut self, order: Order) -> Figures {
        time(&mut self.processes, order)
    }
}

fn time(processes: &mut [Process], order: Order) -> Figures {
    let begun = Instant::now();
    for process in &mut *processes {
        process.tell(&order.text());
    }
    let answers: Vec<_> = processes.iter_mut().map(Process::answer).collect();
    let all = begun.elapsed();
    Figures::new(answers.iter().flat_map(|answer| order::parse_times(answer)).collect(), all)
}

/// A server. Ends when its standard input does, which the system sees to if this process is killed.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mode: Mode) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([SERVER_FLAG, mode.text()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("what runs can be started once more");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, orders, answers }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.orders, "{line}").expect("the server listens");
    }

    fn answer(&mut self) -> String {
        self.answers.next().expect("the server has not ended").expect("a line")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
