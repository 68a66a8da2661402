use std::time::Duration;

/// A clock where there is one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Clock(#[cfg(not(target_family = "wasm"))] std::time::Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(
            #[cfg(not(target_family = "wasm"))]
            std::time::Instant::now(),
        )
    }

    /// Time since the start; `None` where there is no clock.
    pub fn elapsed(&self) -> Option<Duration> {
        #[cfg(not(target_family = "wasm"))]
        return Some(self.0.elapsed());
        #[cfg(target_family = "wasm")]
        return None;
    }
}
