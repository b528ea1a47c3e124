//! A system over HTTP: requests out, answers in, within limits of time and size. Redirects are not followed, nothing is
//! retried here, and a request that may have been received is told apart from one that was not.

use super::{answer::Heard, pace::Pace, sign};
use crate::{
    code::Code,
    config::{
        Instance,
        plan::{Http, LoginKind, Request, Tls},
        raw::adapter::SecretIn,
    },
    format::Format,
    template::{Scope, Template},
    verdict::{Class, Failure},
};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
    tls::{Certificate, Identity},
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// What is sent as a body.
#[derive(Debug, Clone)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// The content type.
    pub content_type: String,
}

/// A system over HTTP.
pub struct HttpSystem {
    instance: Arc<Instance>,
    /// Keeps no connection: each carries one request (docs/decisions/0018-a-connection-carries-one-request.md).
    client: Client,
    base: Url,
    /// The proxy's host, for people.
    proxy: Option<String>,
    answer_limit: u64,
    pace: Box<Pace>,
    token: Mutex<Option<Token>>,
}

struct Token {
    value: SecretString,
    until: Instant,
}

impl HttpSystem {
    /// Makes ready.
    ///
    /// # Errors
    /// An address, a certificate or a proxy that cannot work.
    pub fn open(instance: Arc<Instance>, plan: &Http) -> Result<HttpSystem, Failure> {
        let bad = |what: String| Failure::refused(Code::BadAddress, "", format!("{}: {what}", instance.name));
        let base = text(&instance, &plan.base_url)?;
        let base = Url::parse(&base).map_err(|error| bad(format!("`{base}` is not a URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("the base URL begins with http:// or https://".to_owned()));
        }
        if let Some(LoginKind::Oauth2 { token_url, .. }) = plan.login.as_ref().map(|login| &login.how) {
            let url = text(&instance, token_url)?;
            Url::parse(&url).map_err(|error| bad(format!("the token URL `{url}` is not a URL: {error}")))?;
        }
        let proxy = plan
            .proxy
            .as_ref()
            .map(|proxy| text(&instance, proxy))
            .transpose()?
            .filter(|proxy| !proxy.is_empty());
        let mut builder = Client::builder()
            .connect_timeout(plan.connect_timeout)
            .timeout(plan.timeout)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true)
            .user_agent(concat!("packhorse/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| bad(format!("the proxy: {error}")))?;
            builder = builder.proxy(proxy);
        }
        if let Some(tls) = &plan.tls {
            builder = with_tls(builder, &instance, tls)?;
        }
        let client = builder.build().map_err(|error| {
            let what = match &plan.tls {
                // A machine without any authorities, mostly: the package ca-certificates brings them.
                None => "TLS cannot be made ready",
                Some(_) => "the certificates cannot be used",
            };
            Failure::away(Code::TlsFailed, format!("{}: {what}: {}", instance.name, innermost(&error)))
        })?;
        Ok(HttpSystem {
            client,
            base,
            answer_limit: plan.answer_limit,
            proxy: proxy.map(|proxy| match Url::parse(&proxy) {
                Ok(url) => url.host_str().unwrap_or_default().to_owned(),
                Err(_) => "that is set".to_owned(),
            }),
            pace: Box::new(Pace::new(&instance.bears, &instance.adapter.rates)),
            token: Mutex::default(),
            instance,
        })
    }

    /// The adapter in use.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Where the system puts an error code of its own.
    pub fn error_code(&self) -> Option<&crate::mapping::path::Path> {
        self.plan().and_then(|plan| plan.error_code.as_ref())
    }

    fn plan(&self) -> Option<&Http> {
        match &self.instance.adapter.system {
            crate::config::plan::SystemPlan::Http(plan) => Some(plan),
            crate::config::plan::SystemPlan::Amqp(_)
            | crate::config::plan::SystemPlan::Files(_)
            | crate::config::plan::SystemPlan::Sql(_) => None,
        }
    }

    /// Makes a request and hears the whole answer.
    ///
    /// # Errors
    /// It was not made, or nobody knows.
    pub async fn call(
        &self,
        request: &Request,
        scope: &Scope<'_>,
        body: Option<Body>,
        trace: Option<&str>,
    ) -> Result<Heard, Failure> {
        let url = self.url(request, scope)?;
        self.call_url(request, url, scope, body, trace).await
    }

    /// The same at a URL that an answer has named; it must be of the same origin.
    ///
    /// # Errors
    /// It was not made, or nobody knows.
    pub async fn call_link(
        &self,
        request: &Request,
        link: &str,
        scope: &Scope<'_>,
    ) -> Result<Heard, Failure> {
        let foreign = || {
            Failure::refused(
                Code::RedirectRefused,
                "",
                "the answer's link leads to another server than the adapter's",
            )
        };
        let url = self.base.join(link).map_err(|_| foreign())?;
        if url.origin() != self.base.origin() {
            return Err(foreign());
        }
        self.call_url(request, url, scope, None, None).await
    }

    async fn call_url(
        &self,
        request: &Request,
        url: Url,
        scope: &Scope<'_>,
        body: Option<Body>,
        trace: Option<&str>,
    ) -> Result<Heard, Failure> {
        let reads_only = request.method == "GET";
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| Failure::refused(Code::BadAddress, "method", "the request's method is not one"))?;
        let headers = self.headers(request, scope, body.as_ref(), trace).await?;
        let login = headers.get(reqwest::header::AUTHORIZATION).cloned();
        // Held until the answer is there: whenever within that time the request arrived, the rate is kept.
        let _call = self.pace.call(request.rate.as_deref()).await;
        let mut builder = self.client.request(method, url).headers(headers);
        if let Some(body) = body {
            builder = builder.body(body.bytes);
        }
        let host = self.base.host_str().unwrap_or_default();
        let response = builder.send().await.map_err(|error| self.failed(host, &error, reads_only))?;
        let status = response.status().as_u16();
        if let (401, Some(login)) = (status, login) {
            self.forget(&login).await;
        }
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = header("content-type");
        let retry_after = header("retry-after").and_then(|text| retry_after(&text, scope.now));
        let body = self.read(response, reads_only).await?;
        Ok(Heard { status, content_type, retry_after, body, reads_only })
    }

    /// The URL of a request: the base, the path with everything inserted percent-encoded, the query.
    fn url(&self, request: &Request, scope: &Scope<'_>) -> Result<Url, Failure> {
        let path = rendered(&request.path, "path", scope)?;
        let whole = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let mut url = Url::parse(&whole).map_err(|_| {
            Failure::refused(Code::BadAddress, "path", "the path does not make a URL with the base")
        })?;
        if url.origin() != self.base.origin() {
            let what = "the path leads to another server than the adapter's";
            return Err(Failure::refused(Code::BadAddress, "path", what));
        }
        for (name, template) in &request.query {
            let value = rendered(template, name, scope)?;
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(url)
    }

    async fn headers(
        &self,
        request: &Request,
        scope: &Scope<'_>,
        body: Option<&Body>,
        trace: Option<&str>,
    ) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let mut put = |name: &str, value: &str, sensitive: bool| -> Result<(), Failure> {
            let bad = |_| {
                Failure::refused(Code::ValueRefused, name, format!("the header {name} cannot hold its value"))
            };
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                Failure::refused(Code::ValueRefused, name, format!("`{name}` is not a header's name"))
            })?;
            let mut value = HeaderValue::from_str(value).map_err(bad)?;
            value.set_sensitive(sensitive);
            headers.insert(parsed, value);
            Ok(())
        };
        if let Some(body) = body {
            put("content-type", &body.content_type, false)?;
        }
        let own = self.plan().map(|plan| plan.headers.as_slice()).unwrap_or_default();
        for (name, template) in own.iter().chain(&request.headers) {
            put(name, &rendered(template, name, scope)?, false)?;
        }
        let bytes = body.map(|body| body.bytes.clone()).unwrap_or_default();
        for (_, how) in &self.instance.adapter.body_signs {
            if let Some(header) = &how.header {
                put(header, &sign::sign(&self.instance, how, &bytes)?, false)?;
            }
        }
        for (name, computed) in &self.instance.adapter.values {
            if let crate::config::plan::Computed::Signature(how, _) = computed
                && let (Some(header), Some(value)) =
                    (&how.header, scope.values.and_then(|values| values.get(name)))
            {
                put(header, value, false)?;
            }
        }
        if let Some(trace) = trace {
            put("traceparent", trace, false)?;
        }
        if let Some((name, value)) = self.login().await? {
            // A secret that no header can hold is the settings' fault, not the message's: the message waits.
            put(&name, value.expose_secret(), true).map_err(|failure| {
                Failure::away(Code::LoginRefused, format!("our login: {}", failure.what))
            })?;
        }
        Ok(headers)
    }

    /// The header by which we show who we are.
    async fn login(&self) -> Result<Option<(String, SecretString)>, Failure> {
        let Some(login) = self.plan().and_then(|plan| plan.login.as_ref()) else { return Ok(None) };
        if !self.instance.uses(login) {
            return Ok(None);
        }
        let authorization = |text: String| Some(("authorization".to_owned(), SecretString::from(text)));
        Ok(match &login.how {
            LoginKind::Basic { username, password } => {
                use base64::{Engine as _, engine::general_purpose::STANDARD};
                let username = text(&self.instance, username)?;
                let password = sign::secret(&self.instance, password)?;
                authorization(format!(
                    "Basic {}",
                    STANDARD.encode(format!("{username}:{}", password.expose_secret()))
                ))
            }
            LoginKind::Bearer { token } => {
                authorization(format!("Bearer {}", sign::secret(&self.instance, token)?.expose_secret()))
            }
            LoginKind::Header { name, value } => {
                Some((text(&self.instance, name)?, sign::secret(&self.instance, value)?))
            }
            LoginKind::Oauth2 { .. } => {
                let token = self.oauth2().await?;
                authorization(format!("Bearer {}", token.expose_secret()))
            }
        })
    }

    /// A token by client credentials, kept until four fifths of its life are over. One request at a time asks for it.
    async fn oauth2(&self) -> Result<SecretString, Failure> {
        let Some(LoginKind::Oauth2 { token_url, client_id, client_secret, secret_in, scope }) =
            self.plan().and_then(|plan| plan.login.as_ref()).map(|login| &login.how)
        else {
            return Err(Failure::away(Code::LoginRefused, "no OAuth 2.0 login is set"));
        };
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.value.clone());
        }
        let url = text(&self.instance, token_url)?;
        let id = text(&self.instance, client_id)?;
        let secret = sign::secret(&self.instance, client_secret)?;
        let encode = crate::template::percent_encode;
        let (id, secret) = (encode(&id), SecretString::from(encode(secret.expose_secret())));
        let mut form = "grant_type=client_credentials".to_owned();
        if *secret_in == SecretIn::Form {
            form.push_str(&format!("&client_id={id}&client_secret={}", secret.expose_secret()));
        }
        if let Some(scope) = scope {
            form.push_str(&format!("&scope={}", encode(scope)));
        }
        let url = Url::parse(&url).map_err(|error| {
            Failure::not_done(Code::BadAddress, format!("the token URL is not a URL: {error}"))
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let refused = |what: String| {
            let what = format!("no token from the login server {host}: {what}");
            Failure::away(Code::LoginRefused, what)
        };
        let mut request =
            self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        if *secret_in == SecretIn::Basic {
            request = request.basic_auth(id, Some(secret.expose_secret()));
        }
        let response = request.send().await.map_err(|error| {
            let failure = self.failed(&host, &error, true);
            match failure.code == Code::TlsFailed {
                true => failure,
                false => refused(failure.what),
            }
        })?;
        let status = response.status();
        let body = self.read(response, true).await.map_err(|failure| refused(failure.what))?;
        let tree = Format::Json.decode(&body, None, &crate::format::Limits::default());
        if !status.is_success() {
            // `error` is a code of RFC 6749 s.5.2, such as invalid_client; anything else might be somebody's data.
            let of_the_rfc =
                |text: &&str| text.len() <= 40 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let said = tree.as_ref().ok().and_then(|tree| tree.at(&["error"])?.as_text()).filter(of_the_rfc);
            let said = said.map(|code| format!(" ({code})")).unwrap_or_default();
            return Err(refused(format!("it answered {}{said}", status.as_u16())));
        }
        let tree = tree.map_err(|error| refused(error.to_string()))?;
        let token = tree.at(&["access_token"]).and_then(crate::tree::Tree::as_text);
        let token = token.ok_or_else(|| refused("its answer has no access_token".to_owned()))?;
        let seconds = tree
            .at(&["expires_in"])
            .and_then(crate::tree::Tree::to_plain_text)
            .and_then(|text| text.parse::<u64>().ok());
        // Never longer than a day, whatever is promised: a moment far enough away is beyond what a clock can hold.
        let life = Duration::from_secs(seconds.unwrap_or(300).min(86_400)).mul_f64(0.8);
        let value = SecretString::from(token.to_owned());
        *held = Some(Token { value: value.clone(), until: Instant::now() + life });
        Ok(value)
    }

    /// Forgets a token that was taken back early, so that the next request asks for a new one; unless another request has
    /// done so in the meantime.
    async fn forget(&self, login: &HeaderValue) {
        let mut held = self.token.lock().await;
        let used = login.as_bytes().strip_prefix(b"Bearer ");
        if held.as_ref().is_some_and(|token| used == Some(token.value.expose_secret().as_bytes())) {
            *held = None;
        }
    }

    /// Reads the body chunk by chunk, so that a large one costs no memory.
    async fn read(&self, mut response: reqwest::Response, reads_only: bool) -> Result<Bytes, Failure> {
        let class = if reads_only { Class::NotDone } else { Class::Unknown };
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(chunk)) => {
                    if (body.len() + chunk.len()) as u64 > self.answer_limit {
                        let what = format!("the answer has more than {} bytes", self.answer_limit);
                        return Err(Failure {
                            code: Code::AnswerTooLarge,
                            class,
                            what,
                            field: String::new(),
                            retry_after: None,
                        });
                    }
                    body.extend_from_slice(&chunk);
                }
                Err(error) => {
                    let status = response.status().as_u16();
                    let what = match error.is_timeout() {
                        true => format!("the answer ({status}) was not complete in time"),
                        false => format!("the answer ({status}) was cut off"),
                    };
                    let code = if reads_only { Code::AnswerUnreadable } else { Code::OutcomeUnknown };
                    return Err(Failure { code, class, what, field: String::new(), retry_after: None });
                }
            }
        }
    }

    /// What a failed request means: before the connection stood, nothing was received; afterwards, who knows.
    fn failed(&self, host: &str, error: &reqwest::Error, reads_only: bool) -> Failure {
        match caused_by::<rustls::Error>(error) {
            // In TLS 1.3 the other side judges our certificate after our first request may be on its way: it has not been
            // read then, and will not be.
            Some(rustls::Error::AlertReceived(alert))
                if error.is_connect() || is_of_a_certificate(*alert) =>
            {
                let what = format!(
                    "{host} refuses the TLS connection ({alert:?}): it wants a client certificate of an authority it knows"
                );
                return Failure::away(Code::TlsFailed, what);
            }
            Some(tls) if error.is_connect() => {
                return Failure::away(Code::TlsFailed, format!("{host} is not trusted: {tls}"));
            }
            Some(_) | None => {}
        }
        if error.is_connect() {
            let through =
                self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
            let what = match error.is_timeout() {
                true => format!("no connection to {host}{through} in time"),
                false => match caused_by::<std::io::Error>(error) {
                    Some(io) => format!("no connection to {host}{through}: {io}"),
                    None => format!("no connection to {host}{through}"),
                },
            };
            return Failure::away(Code::SystemUnreachable, what);
        }
        if error.is_builder() {
            return Failure::refused(Code::BadAddress, "", "the request could not be built");
        }
        let what = match error.is_timeout() {
            true => "no answer in time, after the request had been sent",
            false => "the connection was cut after the request had been sent, before an answer came",
        };
        match reads_only {
            true => Failure::away(Code::SystemUnreachable, what),
            false => Failure::unknown(what),
        }
    }

    /// Whether the system can be reached and trusted, and we have what we log in with: a connection, TLS, any answer at all,
    /// and with OAuth 2.0 a token.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn reach(&self) -> Result<Reached, Failure> {
        let host = self.base.host_str().unwrap_or_default();
        let response = self.client.get(self.base.clone()).send().await;
        let response = response.map_err(|error| self.failed(host, &error, true))?;
        self.login().await?;
        let date = response.headers().get("date").and_then(|value| value.to_str().ok());
        let theirs = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let clock_ahead =
            theirs.map(|theirs| theirs.timestamp().as_second() - jiff::Timestamp::now().as_second());
        Ok(Reached { status: response.status().as_u16(), clock_ahead })
    }
}

/// What a system showed of itself when it was reached.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// The status of its answer.
    pub status: u16,
    /// By how many seconds its clock is ahead of ours, if it says.
    pub clock_ahead: Option<i64>,
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    instance: &Instance,
    tls: &Tls,
) -> Result<reqwest::ClientBuilder, Failure> {
    let bad = |what: String| Failure::away(Code::TlsFailed, format!("{}: {what}", instance.name));
    let path = |template: &Option<Template>| -> Result<Option<String>, Failure> {
        let path = template.as_ref().map(|template| text(instance, template)).transpose()?;
        Ok(path.filter(|path| !path.is_empty()))
    };
    let read = |path: &str| {
        std::fs::read(instance.path(path)).map_err(|error| bad(format!("{path} cannot be read: {error}")))
    };
    if let Some(ca) = path(&tls.ca)? {
        let certificates =
            Certificate::from_pem_bundle(&read(&ca)?).map_err(|error| bad(format!("{ca}: {error}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let (certificate, key) = (path(&tls.certificate)?, path(&tls.key)?);
    if certificate.is_some() != key.is_some() {
        return Err(bad("a certificate and its key are given together, or neither".to_owned()));
    }
    if let (Some(certificate), Some(key)) = (certificate, key) {
        let Some(key) = instance.reference(&key) else {
            return Err(bad("the certificate's key is a reference: `file:/path` or `cred:name`".to_owned()));
        };
        let key = key.resolve().map_err(|no| Failure::not_done(no.code, no.what))?;
        let mut pem = read(&certificate)?;
        pem.push(b'\n');
        pem.extend_from_slice(key.expose_secret().as_bytes());
        let identity = Identity::from_pem(&pem).map_err(|error| bad(format!("{certificate}: {error}")))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// Whether an alert says what the other side thinks of our certificate (RFC 8446 s.6.2).
fn is_of_a_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    )
}

/// What lies below everything else in the chain of causes.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The first error of a type in the chain of causes.
fn caused_by<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error may wrap the cause that is looked for, and another one may wrap that; their `source` passes over both.
        let mut wrapper = cause.downcast_ref::<std::io::Error>();
        while let Some(inner) = wrapper.and_then(std::io::Error::get_ref) {
            if let Some(found) = inner.downcast_ref::<E>() {
                return Some(found);
            }
            wrapper = inner.downcast_ref::<std::io::Error>();
        }
        source = cause.source();
    }
    None
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110 s.10.2.3).
fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(86_400)));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    let wait = date.duration_since(now);
    Some(Duration::from_secs(u64::try_from(wait.as_secs()).unwrap_or(0).min(86_400)))
}

fn text(instance: &Instance, template: &Template) -> Result<String, Failure> {
    instance.render(template).map_err(|failed| Failure::refused(Code::TemplateFailed, "", failed.0))
}

fn rendered(template: &Template, field: &str, scope: &Scope<'_>) -> Result<String, Failure> {
    template.render(scope).map_err(|failed| {
        Failure::refused(Code::TemplateFailed, field, format!("`{}`: {}", template.source(), failed.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_date() {
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        assert_eq!(retry_after("17", now), Some(Duration::from_secs(17)));
        assert_eq!(retry_after("Mon, 23 Nov 2026 09:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Mon, 23 Nov 2026 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
