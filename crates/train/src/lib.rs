//! Data, optimizers, schedules and training runs.
