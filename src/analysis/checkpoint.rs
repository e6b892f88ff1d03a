//! Files that keep the state of long work, so that it goes on where it was killed.

use crate::data::DataError;
use crate::data::shards::Provenance;
use crate::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two saves, unless saving takes long.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Saving may take this part of the time.
const SAVE_SHARE: u32 = 20;

/// When the file is saved next.
#[derive(Debug)]
pub(super) struct Saving {
    last: Instant,
    cost: Duration,
}

impl Saving {
    pub(super) fn new() -> Saving {
        Saving { last: Instant::now(), cost: Duration::ZERO }
    }

    pub(super) fn is_due(&self) -> bool {
        self.last.elapsed() >= SAVE_EVERY.max(self.cost * SAVE_SHARE)
    }

    pub(super) fn save(&mut self, save: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let start = Instant::now();
        save()?;
        *self = Saving { last: Instant::now(), cost: start.elapsed() };
        Ok(())
    }
}

/// Whether there is a file to go on with; one that is there must be meant.
pub(super) fn is_there(path: &Path, resume: bool) -> Result<bool, Error> {
    if path.exists() && !resume {
        let wrong = DataError::new(path, "is there already");
        return Err(wrong.help("--resume goes on with it; or remove it").into());
    }
    Ok(path.exists())
}

/// Refuses a file made from something else. `work` is what it is of, `flag` what names it.
pub(super) fn check(path: &Path, work: &str, flag: &str, [now, then]: [&Provenance; 2]) -> Result<(), Error> {
    let other = |e: String| {
        DataError::new(path, format!("belongs to another {work}: {e}")).help(format!("give another {flag}"))
    };
    now.check(then).map_err(other)?;
    Ok(())
}
