//! What the simulators of stores share: random numbers from a seed, and the running of many seeds.

mod random;
mod seeds;

pub use random::Random;
pub use seeds::{check, fresh_seeds, keeps_all, number};
