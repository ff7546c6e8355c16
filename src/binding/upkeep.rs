//! Long calls of a FileStore, with progress reports: backup and verification.

use napi::bindgen_prelude::{FnArgs, Function, ToNapiValue};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::errors::{JsError, guarded, refused};
use super::handle::AnyStore;
use super::promise;
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::store::FileStore;

/// The result of a verification.
#[napi(object, object_from_js = false)]
pub struct JsVerification {
    pub sessions: f64,
    pub expired: f64,
    pub unreadable: f64,
    pub pages: f64,
    pub problems: Vec<String>,
    pub found: f64,
}

type Progress = ThreadsafeFunction<FnArgs<(f64, f64)>, (), FnArgs<(f64, f64)>, Status, false, true>;

/// The minimum time between two progress reports.
const INTERVAL: Duration = Duration::from_millis(50);

/// Throttles progress reports to JavaScript. The final report is always sent.
fn reporter(progress: Progress) -> impl FnMut(u64, u64) {
    let mut reported_at: Option<Instant> = None;
    move |done, total| {
        if done >= total || reported_at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            reported_at = Some(Instant::now());
            // Fails if the JavaScript environment has ended.
            progress.call((done as f64, total as f64).into(), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

/// Copies a store to a folder. Resolves to the number of bytes.
#[napi(
    ts_args_type = "store: object, path: string, progress: (done: number, total: number) => void",
    ts_return_type = "Promise<number>"
)]
pub fn backup(
    env: Env,
    store: Value,
    path: String,
    progress: Function<'_, FnArgs<(f64, f64)>, ()>,
) -> Result<Value, JsError> {
    run(env, store, &progress, move |store, progress| {
        store.backup(path.as_ref(), progress).map(|bytes| bytes as f64)
    })
}

/// Copies a store into an empty file that is open for writing. Resolves to the number of bytes.
#[napi(
    ts_args_type = "store: object, descriptor: number, progress: (done: number, total: number) => void",
    ts_return_type = "Promise<number>"
)]
pub fn backup_into(
    env: Env,
    store: Value,
    descriptor: i32,
    progress: Function<'_, FnArgs<(f64, f64)>, ()>,
) -> Result<Value, JsError> {
    let mut file = guarded(|| file_of(descriptor))?;
    run(env, store, &progress, move |store, progress| {
        store.backup_into(&mut file, progress).map(|bytes| bytes as f64)
    })
}

#[cfg(unix)]
fn file_of(descriptor: i32) -> Result<std::fs::File> {
    use std::os::fd::BorrowedFd;
    let closed = || StoreError::Internal("the descriptor of a backup is not open".into());
    if descriptor < 0 {
        return Err(closed());
    }
    // SAFETY: it is not negative. It is duplicated immediately, which fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(borrowed.try_clone_to_owned().map_err(|_| closed())?.into())
}

#[cfg(not(unix))]
fn file_of(_: i32) -> Result<std::fs::File> {
    Err(StoreError::Internal("this system has no descriptors".into()))
}

/// Verifies a store.
#[napi(
    ts_args_type = "store: object, progress: (done: number, total: number) => void",
    ts_return_type = "Promise<JsVerification>"
)]
pub fn verify(
    env: Env,
    store: Value,
    progress: Function<'_, FnArgs<(f64, f64)>, ()>,
) -> Result<Value, JsError> {
    run(env, store, &progress, |store, progress| {
        let seen = store.verify(progress)?;
        Ok(JsVerification {
            sessions: seen.sessions as f64,
            expired: seen.expired as f64,
            unreadable: seen.unreadable as f64,
            pages: seen.pages as f64,
            problems: seen.problems,
            found: seen.found as f64,
        })
    })
}

/// Returns the promise of a job that reports its progress. It runs on an executor of the store.
fn run<T: ToNapiValue + Send + 'static>(
    env: Env,
    store: Value,
    progress: &Function<'_, FnArgs<(f64, f64)>, ()>,
    job: impl FnOnce(&FileStore, &mut dyn FnMut(u64, u64)) -> Result<T> + Send + 'static,
) -> Result<Value, JsError> {
    let store = guarded(|| file_store(store))?;
    let mut progress = weak(progress).map(reporter)?;
    promise::run(env, store.upkeep(), Arc::clone(&store), move |store| job(store, &mut progress))
}

fn weak(progress: &Function<'_, FnArgs<(f64, f64)>, ()>) -> Result<Progress, JsError> {
    progress
        .build_threadsafe_function::<FnArgs<(f64, f64)>>()
        .weak::<true>()
        .callee_handled::<false>()
        .build()
        .map_err(refused)
}

fn file_store(store: Value) -> Result<Arc<FileStore>> {
    match store.share_store()? {
        AnyStore::File(store) => Ok(store),
        AnyStore::Memory(_) | AnyStore::Redis(_) => Err(StoreError::InvalidOption {
            option: "store",
            expected: "a store in a file".into(),
            given: "another".into(),
        }),
    }
}
