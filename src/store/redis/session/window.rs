//! Limits how many whole sessions are requested together. One session may be as large as thousands of others, and all
//! pending replies are in memory.

/// The intended size of all replies together.
const MAX_BYTES: usize = 1 << 20;

const MAX_SESSIONS: usize = 512;

/// The first number, while the size of sessions is unknown.
const FIRST: usize = 16;

/// By at most this factor a batch is larger than the one before, whose sessions may have been small.
const MAX_GROWTH: usize = 4;

pub struct Window(usize);

impl Window {
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// How many sessions to request now.
    pub fn size(&self) -> usize {
        self.0
    }

    /// Takes the next sessions from a list.
    pub fn take<'a, T>(&self, rest: &mut &'a [T]) -> Option<&'a [T]> {
        let (some, others) = rest.split_at(self.0.min(rest.len()));
        *rest = others;
        (!some.is_empty()).then_some(some)
    }

    /// Adapts to the size of the last replies.
    pub fn adapt(&mut self, sessions: usize, bytes: usize) {
        let fitting = MAX_BYTES / (bytes / sessions.max(1)).max(1);
        self.0 = fitting.clamp(1, MAX_SESSIONS).min(MAX_GROWTH * self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sessions_are_requested_in_larger_batches() {
        let all = [(); 10_000];
        let sizes = |bytes: &dyn Fn(usize) -> usize| {
            let (mut window, mut rest, mut sizes) = (Window::new(), &all[..], Vec::new());
            while let Some(some) = window.take(&mut rest) {
                sizes.push(some.len());
                window.adapt(some.len(), some.len() * bytes(sizes.len()));
            }
            assert_eq!(sizes.iter().sum::<usize>(), all.len());
            sizes
        };
        assert_eq!(sizes(&|_| 300)[..5], [16, 64, 256, 512, 512]);
        assert_eq!(sizes(&|_| 0)[3..5], [512, 512]);
        assert_eq!(sizes(&|_| 1 << 20)[..3], [16, 1, 1]);
        assert_eq!(sizes(&|_| 64 << 10)[..3], [16, 16, 16]);
        assert_eq!(sizes(&|at| if at < 4 { 300 } else { 32 << 10 })[..6], [16, 64, 256, 512, 32, 32]);
    }
}
