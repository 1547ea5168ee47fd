//! The control plane's API, `/api/v1`, as this command uses it.

use crate::{
    config::Login,
    error::CliError,
    net::{Call, Client, Connector, Origin, Reply, RequestError, Socket, Stream, open_websocket},
};
use bytes::Bytes;
use daemon::Ids;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use std::sync::Arc;
use url::Url;
use wire::{
    api::{CreateGrant, Grant, IDEMPOTENCY_HEADER, Page},
    gateway::{GRANT_HEADER, WAKE_HEADER},
    secret::Secret,
    text::SshPublicKey,
};

/// Of a hundred items each; a server that goes on after that goes in circles.
const MAX_PAGES: usize = 1000;

/// An answer as the server wrote it, and as this version understands it.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    pub(crate) raw: Value,
    pub(crate) it: T,
}

impl<T> Serialize for Object<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<T: DeserializeOwned> Object<T> {
    pub(crate) fn of(url: &str, raw: Value) -> Result<Self, RequestError> {
        let it = T::deserialize(&raw).map_err(|source| RequestError::Unreadable {
            url: url.to_owned(),
            source,
        })?;
        Ok(Self { raw, it })
    }

    fn of_reply(reply: &Reply) -> Result<Self, RequestError> {
        Self::of(&reply.url, reply.json()?)
    }
}

#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    login: Login,
}

impl Api {
    pub(crate) fn new(login: Login, ids: Arc<dyn Ids>) -> Self {
        Self {
            client: Client::new(Connector::new(login.ca_file.clone()), ids),
            login,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.login.base.to_string()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Object<T>, RequestError> {
        Object::of_reply(&self.client.fetch(&self.call(Method::GET, path)?).await?)
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Object<T>, RequestError> {
        Object::of_reply(&self.send(Method::POST, path, body).await?)
    }

    pub(crate) async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Object<T>, RequestError> {
        Object::of_reply(&self.send(Method::PUT, path, body).await?)
    }

    pub(crate) async fn patch<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Object<T>, RequestError> {
        Object::of_reply(&self.send(Method::PATCH, path, body).await?)
    }

    /// The answer's body, where there is one.
    pub(crate) async fn delete(&self, path: &str) -> Result<Bytes, RequestError> {
        let call = self.call(Method::DELETE, path)?;
        Ok(self.client.fetch(&call).await?.body)
    }

    /// All pages of a list.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Vec<Object<T>>, RequestError> {
        let mut items = Vec::new();
        let mut query = String::new();
        for _ in 0..MAX_PAGES {
            let page: Object<Page<Value>> = self.get(&format!("{path}{query}")).await?;
            for item in page.it.items {
                items.push(Object::of(&self.url(), item)?);
            }
            match page.it.next {
                Some(next) => query = format!("?cursor={}", segment(&next)),
                None => break,
            }
        }
        Ok(items)
    }

    /// A `text/event-stream`.
    pub(crate) async fn stream(&self, path: &str) -> Result<Response<Incoming>, RequestError> {
        let call = self.call(Method::GET, path)?.header(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        self.client.open(&call).await
    }

    /// A grant to work in gitspace `name`.
    pub(crate) async fn grant(&self, name: &str) -> Result<Entry, CliError> {
        let path = format!("/gitspaces/{}/grants", segment(name));
        let made = self.post(&path, &CreateGrant::default()).await;
        let grant: Object<Grant> = made.map_err(|error| {
            if error.status() == Some(StatusCode::NOT_FOUND) {
                CliError::NotFound {
                    what: "gitspace",
                    name: name.to_owned(),
                }
            } else {
                error.into()
            }
        })?;
        Entry::new(grant.it)
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<Reply, RequestError> {
        let body = serde_json::to_vec(body).map_err(|source| RequestError::Unreadable {
            url: self.url(),
            source,
        })?;
        let is_post = method == Method::POST;
        let mut call = self.call(method, path)?.json(body);
        if is_post {
            // The same key with every repetition of this request, so that it has one effect.
            let key = self.client.fresh_id().to_string();
            call = call.header(
                HeaderName::from_static(IDEMPOTENCY_HEADER),
                self.header_value(&key)?,
            );
        }
        self.client.fetch(&call).await
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, RequestError> {
        let base = &self.login.base;
        let target = format!("{}/api/v1{path}", base.prefix);
        let mut bearer = self.header_value(&format!("Bearer {}", self.login.token.expose()))?;
        bearer.set_sensitive(true);
        Ok(Call::new(&base.origin, method, target).header(header::AUTHORIZATION, bearer))
    }

    fn header_value(&self, text: &str) -> Result<HeaderValue, RequestError> {
        HeaderValue::from_str(text).map_err(|error| RequestError::Request {
            url: self.url(),
            source: error.into(),
        })
    }
}

/// The way into one gitspace: the origin of its workspace, and a grant for the gateway there.
#[derive(Debug)]
pub(crate) struct Entry {
    origin: Origin,
    grant: Secret,
    ssh_host_key: Option<SshPublicKey>,
}

impl Entry {
    fn new(grant: Grant) -> Result<Self, CliError> {
        let url = &grant.url;
        let origin = Url::parse(url)
            .ok()
            .and_then(|url| Origin::of(&url).ok())
            .ok_or_else(|| CliError::Line {
                name: url.clone(),
                why: "the control plane gave no URL of it that can be used".to_owned(),
            })?;
        Ok(Self {
            origin,
            grant: grant.grant,
            ssh_host_key: grant.ssh_host_key,
        })
    }

    /// As the control plane publishes it.
    pub(crate) fn ssh_host_key(&self) -> Option<&SshPublicKey> {
        self.ssh_host_key.as_ref()
    }

    /// A connection that goes on as something else than HTTP.
    pub(crate) async fn upgrade(
        &self,
        client: &Client,
        path: &str,
        protocol: &'static str,
    ) -> Result<Stream, RequestError> {
        client
            .upgrade(self.call(Method::GET, path)?, protocol)
            .await
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
    ) -> Result<Object<T>, RequestError> {
        Object::of_reply(&client.fetch(&self.call(Method::GET, path)?).await?)
    }

    pub(crate) async fn delete(&self, client: &Client, path: &str) -> Result<(), RequestError> {
        client.fetch(&self.call(Method::DELETE, path)?).await?;
        Ok(())
    }

    /// Not sent again after a cut line: the workspace service knows no idempotency keys.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        body: &B,
    ) -> Result<T, RequestError> {
        let unreadable = |source| RequestError::Unreadable {
            url: self.origin.to_string(),
            source,
        };
        let call = self
            .call(Method::POST, path)?
            .json(serde_json::to_vec(body).map_err(unreadable)?);
        client.fetch_no_retry(&call).await?.json()
    }

    pub(crate) async fn websocket(
        &self,
        client: &Client,
        path: &str,
    ) -> Result<Socket, RequestError> {
        open_websocket(client, self.call(Method::GET, path)?).await
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, RequestError> {
        let mut grant =
            HeaderValue::from_str(self.grant.expose()).map_err(|error| RequestError::Request {
                url: self.origin.to_string(),
                source: error.into(),
            })?;
        grant.set_sensitive(true);
        Ok(Call::new(&self.origin, method, path.to_owned())
            .header(HeaderName::from_static(GRANT_HEADER), grant)
            // Whoever types a command is told that it does not run, or sees it start; what is attached again after a stop must not undo that.
            .header(
                HeaderName::from_static(WAKE_HEADER),
                HeaderValue::from_static("never"),
            ))
    }
}

/// Text as one segment of a path or one value of a query.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            // A segment of dots alone would be a way up.
            b'.' if text.bytes().all(|byte| byte == b'.') => out.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("demo-1.x"), "demo-1.x");
        assert_eq!(segment("../tokens?a=b#c"), "..%2Ftokens%3Fa%3Db%23c");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("é\n"), "%C3%A9%0A");
    }
}
