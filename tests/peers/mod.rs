//! Processes that open stores and do what a test asks of them, until they are killed or stopped.
//!
//! The test binary starts itself, and the test `child` of it serves commands: a line of standard input is a command with a
//! ticket, a line of standard output its answer. Nothing waits without a deadline.

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

/// Long enough for the slowest machine. A process that takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The option of those who are expected to get what they wait for. One that does not says why before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

const ROLE: &str = "NATIVE_STORE_TEST_CHILD";
const CRASH_POINT: &str = "NATIVE_STORE_CRASH_POINT";

/// An answer, or the code and the text of an error.
pub type Answer = Result<String, (String, String)>;

/// How the processes of a test open its store.
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

/// A process that was started by a test.
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

    /// Starts a process that dies or stops at a step: `AfterSync:3:kill`.
    pub fn start_to_crash(crash_point: &str) -> Self {
        Self::start_with(&[(CRASH_POINT, crash_point)])
    }

    /// Starts a process that dies when this commit of it is written, before it can tell others.
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
        // It ends with the process.
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

    /// As `answer`, but fails when the time is over.
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

    /// The next answer, whichever it is. `None` if the process has ended.
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

    /// Calls and waits. `None` if the process has ended without an answer.
    pub fn try_call(&mut self, command: &str) -> Option<Answer> {
        let ticket = self.send(command);
        self.answer(ticket)
    }

    /// Calls and waits for a success.
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
            // SAFETY: it sends a signal to a process that this one has not waited for yet.
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

    /// Answers that have come, by ticket.
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

/// The time of a call is over.
#[derive(Debug)]
pub struct TooLate;

pub fn open_command(kind: &Kind, command_timeout: Duration) -> String {
    let millis = command_timeout.as_millis();
    format!("open {} {} {} {millis}", path(&kind.path), kind.durability.name(), kind.is_encrypted)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Calls for each of these, some at a time: most of the time they wait for a disk.
pub fn for_all<T: Send + Sync>(cases: &[T], call: impl Fn(&T) + Sync) {
    const AT_ONCE: usize = 4;
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
                    call(case);
                }
            });
        }
    });
}
