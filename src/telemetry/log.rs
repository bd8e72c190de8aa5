//! The program's own messages: JSON lines on standard error.

use std::io;

use tracing::level_filters::LevelFilter;

/// Sets the log up, once per process. A later call changes nothing.
pub fn start(level: LevelFilter) {
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_target(false).with_current_span(false);
    // What it says of a line that cannot be written would go where the line cannot go, and end whoever wrote it.
    let lines = lines.log_internal_errors(false);
    // Fails only if a log is set up already, which is just as well.
    let _ = tracing::subscriber::set_global_default(lines.with_max_level(level).with_writer(io::stderr).finish());
}
