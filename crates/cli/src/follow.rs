//! Server-sent events that go on after a cut line, each item once.

use crate::{
    api::{Api, Object},
    error::CliError,
    net::{RequestError, SseParser},
};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use wire::api::{LogEntry, TimelineEvent};

/// The server says something at least each 15 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long a server may be away, restarts included.
const OUTAGE_LIMIT: Duration = Duration::from_secs(120);
/// A server that was never reached is not waited for as long.
const FIRST_LIMIT: Duration = Duration::from_secs(3);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Has a number that rises.
pub(crate) trait Numbered: DeserializeOwned {
    fn id(&self) -> u64;
}

impl Numbered for TimelineEvent {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Numbered for LogEntry {
    fn id(&self) -> u64 {
        self.id
    }
}

#[derive(Debug)]
pub(crate) struct Follow<'a, T> {
    api: &'a Api,
    /// With its query so far.
    path: String,
    after: u64,
    body: Option<Incoming>,
    parser: SseParser,
    ready: VecDeque<Object<T>>,
    connected: bool,
    tries: u32,
    wait: Duration,
    away_since: Option<Instant>,
}

impl<'a, T: Numbered> Follow<'a, T> {
    pub(crate) fn new(api: &'a Api, path: String, after: u64) -> Self {
        Self {
            api,
            path,
            after,
            body: None,
            parser: SseParser::default(),
            ready: VecDeque::new(),
            connected: false,
            tries: 0,
            wait: FIRST_WAIT,
            away_since: None,
        }
    }

    /// The next item; `None` once what is followed is gone. To be polled until it is ready: dropped while it connects, it starts anew.
    pub(crate) async fn next(&mut self) -> Result<Option<Object<T>>, CliError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.after = item.it.id();
                return Ok(Some(item));
            }
            match self.body.as_mut() {
                Some(body) => match timeout(SILENCE_LIMIT, body.frame()).await {
                    Ok(Some(Ok(frame))) => {
                        if let Ok(bytes) = frame.into_data() {
                            self.take(&bytes)?;
                        }
                    }
                    // Ended, cut or silent: the next one goes on after the last item.
                    Ok(None | Some(Err(_))) | Err(_) => self.body = None,
                },
                None => {
                    if !self.connect().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let unreadable = |source| RequestError::Unreadable {
            url: self.api.url(),
            source,
        };
        let mut events = Vec::new();
        self.parser
            .push(bytes, &mut events)
            .map_err(|error| unreadable(serde::de::Error::custom(error)))?;
        for event in events {
            let raw = serde_json::from_str(&event.data).map_err(unreadable)?;
            let item = Object::<T>::of(&self.api.url(), raw)?;
            let last = self.ready.back().map_or(self.after, |item| item.it.id());
            if item.it.id() > last {
                self.ready.push_back(item);
            }
        }
        // An answer alone is no sign of health: something has to have come.
        self.wait = FIRST_WAIT;
        self.away_since = None;
        Ok(())
    }

    /// False where there is nothing left to follow.
    async fn connect(&mut self) -> Result<bool, CliError> {
        if self.tries > 0 {
            sleep(self.wait.mul_f64(0.5 + self.api.client().chance() / 2.0)).await;
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
        self.tries = self.tries.saturating_add(1);
        let away_since = *self.away_since.get_or_insert_with(Instant::now);
        let limit = if self.connected {
            OUTAGE_LIMIT
        } else {
            FIRST_LIMIT
        };
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{mark}after={}", self.path, self.after);
        match self.api.stream(&path).await {
            Ok(answer) => {
                self.body = Some(answer.into_body());
                self.parser = SseParser::default();
                self.connected = true;
                Ok(true)
            }
            Err(error) if self.connected && error.status() == Some(StatusCode::NOT_FOUND) => {
                Ok(false)
            }
            Err(error) if error.is_passing() && away_since.elapsed() < limit => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
