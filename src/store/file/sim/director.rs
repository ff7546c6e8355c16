//! Opens, closes, stops and kills processes, and judges the store at the end.

use std::rc::Rc;

use super::clients;
use super::scheduler::current;
use super::world::World;

pub(super) fn direct() {
    let world = current();
    for lane in 0..world.config.lanes {
        world.spawn(format!("client {lane}"), None, move || clients::client(lane));
        if world.chance(500_000) {
            world.spawn(format!("reader {lane}"), None, move || clients::reader(lane));
        }
    }
    while world.clients.get() > 0 {
        if world.alive().is_empty() {
            world.start(false);
        }
        let pause = world.random.borrow_mut().between(1, world.config.chaos_micros);
        world.sleep_micros(pause);
        act(&world);
    }
    judge(&world);
    world.end();
}

/// Applies an event to one process or to all.
fn act(world: &Rc<World>) {
    let alive = world.alive();
    let (what, which) = {
        let mut random = world.random.borrow_mut();
        (random.below(100), alive.get(random.below(alive.len().max(1))).cloned())
    };
    match (what, which) {
        (0..=34, _) if alive.len() < world.config.max_processes => {
            let is_reader = what < 6;
            world.start(is_reader);
        }
        (35..=44, Some(process)) => world.close(&process),
        (45..=48, Some(process)) if world.config.kills > 0 => world.kill(process.id),
        (49..=50, _) if world.config.power_losses > 0 => world.lose_power(),
        (51..=53, Some(process)) if world.config.stops > 0 => {
            let micros = *world.random.borrow_mut().pick(&[10_000, 2_000_000, 20_000_000]);
            world.stop(process.id, micros);
        }
        (54..=75, _) => {
            let millis =
                *world.random.borrow_mut().pick(&[1, 50, 50, 400, 1_100, 1_100, 2_500, 31_000, 70_000]);
            world.advance(millis);
        }
        (76..=79, _) => world.drop_clean(),
        _ => {}
    }
}

/// Opens the store again without faults, with and without a log, and checks everything.
fn judge(world: &Rc<World>) {
    world.is_calm.set(true);
    world.trace("the end");
    for process in world.alive() {
        process.stopped_until.set(0);
        match world.random.borrow_mut().below(3) {
            0 => {}
            1 => {
                world.kill(process.id);
                continue;
            }
            _ => continue,
        }
        world.close(&process);
    }
    if world.chance(if world.config.power_losses > 0 { 300_000 } else { 0 }) {
        world.lose_power();
    }
    for _ in 0..2 {
        let process = world.start(false);
        let opened = Rc::clone(&process);
        world.wait_until(move || opened.is_dead.get() || opened.store.borrow().is_some());
        let Some(store) = process.store.borrow().clone() else {
            world.fail_here("the store cannot be opened".into())
        };
        clients::check_all(world, &process, &store);
        if world.chance(500_000) {
            world.kill(process.id);
        } else {
            world.close(&process);
            drop(store);
            let closed = Rc::clone(&process);
            world.wait_until(move || closed.is_dead.get());
        }
    }
}
