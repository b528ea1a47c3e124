//! Systems that are reached by files, as an adapter writes about them: a folder of this machine, or one over SFTP.

use schemars::JsonSchema;
use serde::Deserialize;

/// A system whose files are in a folder of this machine, or one that is mounted on it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderKeys {
    /// The folder; a template of `settings`. A relative path begins at the folder of `packhorse.toml`. Routes name folders below it; nothing outside of it is touched.
    pub path: String,
    /// How long a single operation may take: a mounted folder may stop answering. Default: `30s`.
    pub timeout: Option<String>,
    /// How long copying a whole file may take. Default: `1h`.
    pub transfer_timeout: Option<String>,
}

/// A system whose files are reached over SFTP. `key`, `password` or both, of which a council sets at least one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftpKeys {
    /// The server: `host` or `host:port`; a template of `settings`.
    pub address: String,
    /// The user; a template of `settings`.
    pub username: String,
    /// Our private key in OpenSSH's or PKCS#8 form, Ed25519 or ECDSA, without a passphrase: the name of a secret setting.
    pub key: Option<String>,
    /// The password: the name of a secret setting.
    pub password: Option<String>,
    /// The fingerprints of the server's host keys, `SHA256:...`, separated by spaces; a template of `settings`. Any of them may
    /// be shown: two while the server's key is being changed.
    pub host_keys: String,
    /// The folder on the server; a template of `settings`. Without a leading `/` it is below the folder into which the login
    /// leads. Default: that folder. Routes name folders below it.
    pub folder: Option<String>,
    /// How long connecting may take. Default: `10s`.
    pub connect_timeout: Option<String>,
    /// How long a single answer may take. Default: `30s`.
    pub timeout: Option<String>,
    /// How long copying a whole file may take. Default: `1h`.
    pub transfer_timeout: Option<String>,
}
