//! Processes that open stores and serve the commands of a test until they are killed.
//!
//! The test binary starts itself, and its test `child` serves commands. A line of standard input is a ticket and a
//! command, and a line of standard output is an answer. Every wait has a deadline.

pub mod child;
mod commit;
pub mod model;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use native_store::store::file::{Durability, FileOptions, Secret};

use self::model::Op;

/// The time after which a process counts as hung, even on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The `commandTimeout` of processes whose calls must succeed. It is below `DEADLINE`, so that a call reports its error
/// before the process counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

const ROLE: &str = "NATIVE_STORE_TEST_CHILD";
const CRASH_POINT: &str = "NATIVE_STORE_CRASH_POINT";

/// The result of a command, or the code and the message of an error.
pub type Answer = Result<String, (String, String)>;

/// The options with which the processes of a test open its store.
#[derive(Debug, Clone)]
pub struct Kind {
    pub path: PathBuf,
    pub durability: Durability,
    pub is_encrypted: bool,
}

impl Kind {
    pub fn options(&self, command_timeout: Duration) -> FileOptions {
        let secret = || Secret::new(b"a secret of some length".to_vec());
        FileOptions {
            path: self.path.clone(),
            secrets: if self.is_encrypted { vec![secret()] } else { Vec::new() },
            durability: Some(self.durability),
            command_timeout: Some(command_timeout.as_millis() as u64),
            sweep_interval: Some(0),
            ..FileOptions::default()
        }
    }
}

/// A process that a test has started.
pub struct Peer {
    process: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
    answers: HashMap<u32, Answer>,
    last_ticket: u32,
    has_ended: bool,
}

impl Peer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a process that kills or stops itself at a step, such as `AfterSync:3:kill`.
    pub fn start_to_crash(crash_point: &str) -> Self {
        Self::start_with(&[(CRASH_POINT, crash_point)])
    }

    /// Starts a process that is killed when this commit is written, before it has updated the lock file.
    pub fn start_to_die_in_commit(commit: usize) -> Self {
        Self::start_with(&[(commit::LAST_COMMIT, &commit.to_string())])
    }

    fn start_with(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env_remove(CRASH_POINT).envs(variables.iter().copied());
        let mut process = command.spawn().unwrap();
        let output = process.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        // The thread ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix('@')
                    && sender.send(line.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        let commands = process.stdin.take();
        Self { process, commands, lines, answers: HashMap::new(), last_ticket: 0, has_ended: false }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a command, and returns its ticket. A process that has ended gives no answer.
    pub fn send(&mut self, command: &str) -> u32 {
        self.last_ticket += 1;
        let line = format!("{} {command}\n", self.last_ticket);
        let _ = self.commands.as_mut().unwrap().write_all(line.as_bytes());
        self.last_ticket
    }

    pub fn send_op(&mut self, op: &Op) -> u32 {
        self.send(&op.to_string())
    }

    /// Waits for an answer. `None` if the process has ended without one.
    pub fn answer(&mut self, ticket: u32) -> Option<Answer> {
        let answer = self.answer_within(ticket, DEADLINE);
        answer.unwrap_or_else(|_| panic!("process {} has hung: no answer within {DEADLINE:?}", self.pid()))
    }

    /// Like `answer`, but fails after this time.
    pub fn answer_within(&mut self, ticket: u32, time: Duration) -> Result<Option<Answer>, TooLate> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(answer) = self.answers.remove(&ticket) {
                return Ok(Some(answer));
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => {
                    self.has_ended = true;
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => return Err(TooLate),
            }
        }
    }

    /// Waits for any answer. `None` if the process has ended.
    pub fn next_answer(&mut self) -> Option<(u32, Answer)> {
        loop {
            if let Some(&ticket) = self.answers.keys().next() {
                return self.answers.remove(&ticket).map(|answer| (ticket, answer));
            }
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => {
                    self.has_ended = true;
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("process {} has hung: no answer within {DEADLINE:?}", self.pid())
                }
            }
        }
    }

    fn keep(&mut self, line: &str) {
        let (ticket, answer) = line.split_once(' ').unwrap();
        let answer = match answer.split_once(' ').unwrap() {
            ("ok", value) => Ok(value.to_owned()),
            (_, error) => {
                let (code, message) = error.split_once(' ').unwrap();
                Err((code.to_owned(), message.to_owned()))
            }
        };
        self.answers.insert(ticket.parse().unwrap(), answer);
    }

    /// Sends a command, and waits for the answer. `None` if the process has ended without one.
    pub fn try_call(&mut self, command: &str) -> Option<Answer> {
        let ticket = self.send(command);
        self.answer(ticket)
    }

    /// Sends a command that must succeed, and waits for the answer.
    pub fn call(&mut self, command: &str) -> String {
        match self.try_call(command) {
            Some(Ok(value)) => value,
            other => panic!("process {}: {command}: {other:?}", self.pid()),
        }
    }

    pub fn open(&mut self, kind: &Kind) {
        self.call(&open_command(kind, PATIENCE));
    }

    pub fn signal(&self, signal: i32) {
        if !self.has_ended {
            // SAFETY: kill accesses no memory. The PID is still valid, as this process has not waited for it yet.
            unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        }
    }

    /// Kills the process, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let _ = self.process.wait();
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.keep(&line);
        }
        self.has_ended = true;
    }

    /// Waits until the process has killed itself at its step.
    pub fn wait_for_death(&mut self, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{what}: process {} does not die", self.pid());
            thread::sleep(Duration::from_millis(1));
        }
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.keep(&line);
        }
        self.has_ended = true;
    }

    /// Waits until the process has stopped itself at its step.
    pub fn wait_for_stop(&self, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "{what}: process {} does not stop", self.pid());
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Takes the answers that have arrived, by ticket.
    pub fn take_answers(&mut self) -> HashMap<u32, Answer> {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(&line);
        }
        std::mem::take(&mut self.answers)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The error of a wait that has timed out.
#[derive(Debug)]
pub struct TooLate;

pub fn open_command(kind: &Kind, command_timeout: Duration) -> String {
    let millis = command_timeout.as_millis();
    format!("open {} {} {} {millis}", path(&kind.path), kind.durability.name(), kind.is_encrypted)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Calls `call` with each case, on several threads because most of the time is spent waiting for the disk.
pub fn for_all<T: Send + Sync>(cases: &[T], call: impl Fn(&T) + Sync) {
    const THREADS: usize = 4;
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
                    call(case);
                }
            });
        }
    });
}
