//! What a broker says of itself before anybody logs in: product and version. lapin keeps that to itself, and the version
//! decides what is safe.

use super::BrokerError;
use crate::{
    code::Code,
    config::{Address, Broker},
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// `RabbitMQ`
    pub product: String,
    /// `3.10.8`
    pub version: String,
}

impl Greeting {
    /// Major and minor version.
    pub fn numbers(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Whether it is a RabbitMQ before 3.10, which has no at-least-once dead-lettering.
    pub fn is_too_old(&self) -> bool {
        self.product == "RabbitMQ" && self.numbers().is_some_and(|numbers| numbers < (3, 10))
    }
}

/// Asks a broker what it is, without logging in.
///
/// # Errors
/// What the network or TLS says, or that it does not speak AMQP.
pub async fn greet(broker: &Broker, address: &Address) -> Result<Greeting, BrokerError> {
    let unreachable = |what: String| BrokerError::new(Code::BrokerUnreachable, format!("{address}: {what}"));
    let ask = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        match address.tls {
            false => exchange(stream).await.map_err(|error| unreachable(error.to_string())),
            true => {
                let config = crate::tls::client(broker.tls.ca.as_deref(), identity(broker)?)
                    .map_err(|what| BrokerError::new(Code::TlsFailed, format!("{address}: {what}")))?;
                let name = rustls::pki_types::ServerName::try_from(address.host.clone())
                    .map_err(|_| unreachable("this is not a host's name".to_owned()))?;
                let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
                    .connect(name, stream)
                    .await
                    .map_err(|e| BrokerError::new(Code::TlsFailed, format!("{address}: {e}")))?;
                exchange(stream).await.map_err(|error| match of_tls(&error) {
                    true => BrokerError::new(
                        Code::TlsFailed,
                        format!(
                            "{address}: the broker refuses the TLS connection ({error}): it wants a certificate of an authority it knows, by `certificate` and `key` under `[broker.tls]`"
                        ),
                    ),
                    false => unreachable(error.to_string()),
                })
            }
        }
    };
    timeout(Duration::from_secs(10), ask)
        .await
        .unwrap_or_else(|_| Err(unreachable("no answer within 10 s".to_owned())))
}

/// Whether it is TLS that failed, and not the connection below.
fn of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn identity(broker: &Broker) -> Result<Option<(std::path::PathBuf, secrecy::SecretString)>, BrokerError> {
    match (&broker.tls.certificate, &broker.tls.key) {
        (Some(certificate), Some(key)) => {
            let key = key.resolve().map_err(|no| BrokerError::new(no.code, no.what))?;
            Ok(Some((certificate.clone(), key)))
        }
        _ => Ok(None),
    }
}

/// Sends the protocol header and reads `connection.start` (AMQP 0-9-1 s.1.4.2.1), whose second part is a table.
async fn exchange(mut stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin) -> io::Result<Greeting> {
    let foreign = || io::Error::other("it does not speak AMQP 0-9-1");
    // In TLS 1.3 the other side judges our certificate only now. Its verdict can be read even if writing fails.
    let wrote = stream.write_all(b"AMQP\x00\x00\x09\x01").await;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(|error| match (error.kind(), wrote) {
        (io::ErrorKind::UnexpectedEof, Ok(())) => foreign(),
        (io::ErrorKind::UnexpectedEof, Err(wrote)) => wrote,
        _ => error,
    })?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if head[0] != 1 || size > 64 << 10 {
        return Err(foreign());
    }
    let mut body = vec![0; size];
    stream.read_exact(&mut body).await?;
    // class 10, method 10, version major and minor, then the table of server properties
    let table = Reader { bytes: body.get(6..).unwrap_or_default() }.table().unwrap_or_default();
    let text = |name: &str| table.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    Ok(Greeting { product: text("product"), version: text("version") })
}

/// Reads as much of AMQP's tables as server properties use: the texts in them.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn long(&mut self) -> Option<usize> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    fn table(&mut self) -> Option<BTreeMap<String, String>> {
        let length = self.long()?;
        let mut inside = Reader { bytes: self.take(length)? };
        let mut found = BTreeMap::new();
        while !inside.bytes.is_empty() {
            let length = usize::from(*inside.take(1)?.first()?);
            let name = String::from_utf8_lossy(inside.take(length)?).into_owned();
            match *inside.take(1)?.first()? {
                b'S' => {
                    let length = inside.long()?;
                    found.insert(name, String::from_utf8_lossy(inside.take(length)?).into_owned());
                }
                b'F' => {
                    inside.table()?;
                }
                b't' | b'b' | b'B' => {
                    inside.take(1)?;
                }
                b'I' | b'i' => {
                    inside.take(4)?;
                }
                b'l' | b'L' | b'T' => {
                    inside.take(8)?;
                }
                _ => return Some(found),
            }
        }
        Some(found)
    }
}
