//! Batches of jobs with log-normal durations, replayed on a paused clock: the sweeps need at most a quarter of the calls of
//! polls at a fixed interval that detect ends as early in the median.
