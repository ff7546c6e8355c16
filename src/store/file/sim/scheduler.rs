//! The simulated threads. One of them runs at a time, until it reaches a point where the seed selects another one.
//!
//! They are coroutines of one system thread. So a switch takes nanoseconds, and only the seed decides about it. The
//! LMDB environment has `NO_TLS`, so that each coroutine can have its own views.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::world::World;

pub(super) type ProcessId = usize;

/// The panic that ends the threads of a killed process.
pub(super) struct Killed;

type Body = Coroutine<(), (), (), DefaultStack>;
type Condition = Box<dyn Fn() -> bool>;

pub(super) struct Task {
    name: String,
    /// The process whose code is running.
    process: Option<ProcessId>,
    wake_at: u64,
    /// The task waits until this is true.
    condition: Option<Condition>,
    body: Option<Body>,
    yielder: *const Yielder<(), ()>,
}

#[derive(Default)]
pub(super) struct Scheduler {
    tasks: RefCell<Vec<Task>>,
    current: Cell<usize>,
    /// Microseconds since the start of the simulation.
    pub time: Cell<u64>,
    pub steps: Cell<u64>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// The simulation of this thread.
pub(super) fn current() -> Rc<World> {
    CURRENT.with_borrow(|world| {
        Rc::clone(world.as_ref().unwrap_or_else(|| unreachable!("there is no simulation")))
    })
}

pub(super) fn set_current(world: Option<Rc<World>>) {
    CURRENT.set(world);
}

/// Runs code. `None` if a kill has ended it.
pub(super) fn until_killed<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ended) => Some(ended),
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}

impl World {
    /// Starts a thread.
    pub(super) fn spawn(&self, name: String, process: Option<ProcessId>, run: impl FnOnce() + 'static) {
        const STACK: usize = 512 << 10;
        let stack = STACKS.with_borrow_mut(Vec::pop);
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK).unwrap());
        let at = self.scheduler.tasks.borrow().len();
        let body = Body::with_stack(stack, move |yielder, ()| {
            let world = current();
            world.scheduler.tasks.borrow_mut()[at].yielder = yielder;
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(payload) if !payload.is::<Killed>() => world.fail(text_of(&*payload)),
                _ => {}
            }
        });
        let task =
            Task { name, process, wake_at: 0, condition: None, body: Some(body), yielder: std::ptr::null() };
        self.scheduler.tasks.borrow_mut().push(task);
    }

    /// Runs all threads until they have ended or there is a violation.
    pub(super) fn run(&self) {
        const MAX_STEPS: u64 = 400_000;
        let scheduler = &self.scheduler;
        loop {
            scheduler.steps.set(scheduler.steps.get() + 1);
            if scheduler.steps.get() == MAX_STEPS {
                self.fail(format!("no end after {MAX_STEPS} steps: {}", self.waiting()));
            }
            let Some(at) = self.next_task() else {
                if scheduler.tasks.borrow().iter().any(|task| task.body.is_some()) && !self.is_over() {
                    self.fail(format!("no thread can run: {}", self.waiting()));
                    continue;
                }
                break;
            };
            let mut body = {
                let mut tasks = scheduler.tasks.borrow_mut();
                tasks[at].condition = None;
                tasks[at].body.take().unwrap_or_else(|| unreachable!("it can run"))
            };
            scheduler.current.set(at);
            match body.resume(()) {
                CoroutineResult::Yield(()) => scheduler.tasks.borrow_mut()[at].body = Some(body),
                CoroutineResult::Return(()) => {
                    STACKS.with_borrow_mut(|stacks| stacks.push(body.into_stack()));
                }
            }
            scheduler.time.set(scheduler.time.get() + self.config.step_micros);
        }
    }

    /// The next thread to run.
    fn next_task(&self) -> Option<usize> {
        let scheduler = &self.scheduler;
        let is_over = self.is_over();
        let mut random = self.random.borrow_mut();
        loop {
            let now = scheduler.time.get();
            let tasks = scheduler.tasks.borrow();
            let (mut count, mut chosen, mut next_wake) = (0, None, u64::MAX);
            for (at, task) in tasks.iter().enumerate().filter(|(_, task)| task.body.is_some()) {
                let is_dead = task.process.is_some_and(|process| self.is_dead(process));
                if is_dead || is_over {
                    // A killed thread runs now, to release its locks.
                    return Some(at);
                }
                let stopped_until = task.process.map_or(0, |process| self.stopped_until(process));
                let holds = task.condition.as_ref().map(|condition| condition());
                // A sleeping task wakes early if its condition is true. Other tasks run only if their condition is
                // true.
                let wake_at = match (holds, task.wake_at) {
                    (Some(true), _) => stopped_until,
                    (Some(false), 0) => continue,
                    (_, wake_at) => wake_at.max(stopped_until),
                };
                if wake_at > now {
                    next_wake = next_wake.min(wake_at);
                    continue;
                }
                count += 1;
                if random.below(count) == 0 {
                    chosen = Some(at);
                }
            }
            if chosen.is_some() {
                return chosen;
            }
            if next_wake == u64::MAX {
                return None;
            }
            scheduler.time.set(next_wake);
        }
    }

    fn waiting(&self) -> String {
        let tasks = self.scheduler.tasks.borrow();
        let names = tasks.iter().filter(|task| task.body.is_some()).map(|task| task.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn task_name(&self) -> String {
        self.scheduler
            .tasks
            .borrow()
            .get(self.scheduler.current.get())
            .map_or("-".into(), |task| task.name.clone())
    }

    /// The process whose code the running thread executes.
    pub(super) fn process(&self) -> Option<ProcessId> {
        let tasks = self.scheduler.tasks.borrow();
        tasks.get(self.scheduler.current.get()).and_then(|task| task.process)
    }

    /// Runs the code of a process. `None` if the process was killed during that.
    pub(super) fn inside<T>(&self, process: ProcessId, run: impl FnOnce() -> T) -> Option<T> {
        let at = self.scheduler.current.get();
        self.scheduler.tasks.borrow_mut()[at].process = Some(process);
        let ended = until_killed(|| {
            self.check_alive();
            run()
        });
        self.scheduler.tasks.borrow_mut()[at].process = None;
        ended
    }

    /// Ends the running thread if its process was killed or the simulation is over.
    pub(super) fn check_alive(&self) {
        let is_dead = self.process().is_some_and(|process| self.is_dead(process));
        if (is_dead || self.is_over()) && !std::thread::panicking() {
            resume_unwind(Box::new(Killed));
        }
    }

    /// Lets other threads run.
    pub(super) fn yield_now(&self) {
        self.suspend(0, None);
    }

    pub(super) fn sleep_micros(&self, micros: u64) {
        self.suspend(self.scheduler.time.get() + micros, None);
    }

    pub(super) fn wait_until(&self, condition: impl Fn() -> bool + 'static) {
        self.suspend(0, Some(Box::new(condition)));
    }

    pub(super) fn sleep_until(&self, micros: u64, condition: impl Fn() -> bool + 'static) {
        self.suspend(self.scheduler.time.get() + micros + 1, Some(Box::new(condition)));
    }

    fn suspend(&self, wake_at: u64, condition: Option<Condition>) {
        if std::thread::panicking() {
            return;
        }
        self.check_alive();
        let yielder = {
            let mut tasks = self.scheduler.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(self.scheduler.current.get()) else { return };
            if task.yielder.is_null() {
                return;
            }
            (task.wake_at, task.condition) = (wake_at, condition);
            task.yielder
        };
        // SAFETY: the pointer belongs to the running coroutine, and is valid until the coroutine returns.
        unsafe { (*yielder).suspend(()) };
        self.check_alive();
    }
}
