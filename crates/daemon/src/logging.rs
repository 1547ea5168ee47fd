//! Logs: to the journal where systemd listens, else to stderr; the newest lines also stay in memory, for a support bundle.

mod recent;

use recent::Recent;
use serde::Deserialize;
use std::{fmt, io, os::fd::AsFd as _};
use tracing::Dispatch;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt as text,
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// Overrides the configured filter, as `GITSPACES_LOG=debug,hyper=info`.
pub const FILTER_VARIABLE: &str = "GITSPACES_LOG";
const DEFAULT_FILTER: &str = "info";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `info` where absent; directives as `warn,runner_agent=debug`.
    pub filter: Option<String>,
    pub format: LogFormat,
}

impl LogConfig {
    /// The configured filter, or the default.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.filter.as_deref().unwrap_or(DEFAULT_FILTER)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The journal where stderr is connected to it, else text.
    #[default]
    Auto,
    Journal,
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot understand the log filter `{filter}`")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("cannot reach the journal")]
    Journal {
        #[source]
        source: io::Error,
    },
    #[error("logging is set up already")]
    Twice {
        #[source]
        source: TryInitError,
    },
    #[error("logging has ended")]
    Ended,
}

impl crate::Hint for LogError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Filter { .. } => {
                Some("write it as `info` or `warn,runner_agent=debug`".to_owned())
            }
            Self::Journal { .. } => Some("set the log format to `text`".to_owned()),
            Self::Twice { .. } | Self::Ended => None,
        }
    }

    fn exit(&self) -> crate::Exit {
        crate::Exit::Config
    }
}

/// Changes the filter while the process runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    recent: Recent,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

impl LogHandle {
    /// # Errors
    /// Refuses what is not a filter; the filter in force stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        self.filter
            .reload(parse(filter)?)
            .map_err(|_| LogError::Ended)
    }

    /// Takes the filter of a configuration that was read again; the environment's goes on overriding it, as at the start. Answers with the one in
    /// force.
    ///
    /// # Errors
    /// Refuses what is not a filter; the filter in force stays.
    pub fn reload(&self, config: &LogConfig) -> Result<String, LogError> {
        let from_environment = std::env::var(FILTER_VARIABLE).ok();
        let filter = from_environment
            .as_deref()
            .unwrap_or_else(|| config.filter());
        self.set_filter(filter)?;
        Ok(filter.to_owned())
    }

    /// The newest lines, oldest first.
    #[must_use]
    pub fn recent(&self) -> String {
        self.recent.text()
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        self.filter.with_current(ToString::to_string).ok()
    }
}

/// Everything that logs, not yet in force: for a process that wants it somewhere else than everywhere.
///
/// # Errors
/// Refuses a filter that is none, and a journal that is not there.
pub fn build(
    config: &LogConfig,
    identifier: &str,
) -> Result<(impl Into<Dispatch> + use<>, LogHandle), LogError> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok();
    let filter = from_environment
        .as_deref()
        .unwrap_or_else(|| config.filter());
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let to_journal = match config.format {
        LogFormat::Auto => stderr_is_the_journal(),
        LogFormat::Journal => true,
        LogFormat::Text | LogFormat::Json => false,
    };
    let output = if to_journal {
        tracing_journald::layer()
            .map_err(|source| LogError::Journal { source })?
            .with_syslog_identifier(identifier.to_owned())
            .boxed()
    } else if config.format == LogFormat::Json {
        text::layer().json().with_writer(io::stderr).boxed()
    } else {
        text::layer().with_writer(io::stderr).boxed()
    };
    let recent = Recent::default();
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .with(text::layer().with_ansi(false).with_writer(recent.clone()));
    let handle = LogHandle {
        filter: handle,
        recent,
    };
    Ok((subscriber, handle))
}

/// Sets up logging for the whole process, panics included. `identifier` is the name in the journal.
///
/// # Errors
/// Refuses a filter that is none, a journal that is not there, and a second call.
pub fn init(config: &LogConfig, identifier: &str) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = build(config, identifier)?;
    subscriber
        .try_init()
        .map_err(|source| LogError::Twice { source })?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            location,
            message = panic.payload_as_str().unwrap_or("a value that is no text"),
            backtrace = %std::backtrace::Backtrace::capture(),
            "Panic"
        );
    }));
    Ok(handle)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// `JOURNAL_STREAM` is inherited by children whose stderr goes elsewhere, so device and inode are compared.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_by_name() {
        assert_eq!(
            parse("runner=loud").unwrap_err().to_string(),
            "cannot understand the log filter `runner=loud`"
        );
    }

    #[test]
    fn the_filter_can_be_changed_and_a_wrong_one_changes_nothing() {
        let (layer, handle) = reload::Layer::<EnvFilter, Registry>::new(parse("info").unwrap());
        let handle = LogHandle {
            filter: handle,
            recent: Recent::default(),
        };
        handle.set_filter("warn,runner_agent=debug").unwrap();
        assert!(handle.set_filter("=x=").is_err());
        assert!(handle.filter().unwrap().contains("runner_agent=debug"));
        drop(layer);
        assert!(matches!(handle.set_filter("info"), Err(LogError::Ended)));
    }
}
