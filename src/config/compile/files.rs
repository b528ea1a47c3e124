//! Compiling how a system is reached by files.

use super::*;
use crate::config::raw::files::{FolderKeys, SftpKeys};

impl Compiler<'_> {
    pub(super) fn folder(&mut self, keys: &FolderKeys) -> Option<Folder> {
        let at = ["folder".to_owned()];
        Some(Folder {
            path: self.template(&keys.path, Escape::None, &under(&at, &["path"]))?,
            timeout: self.duration(&keys.timeout, "30s", &under(&at, &["timeout"])),
            transfer_timeout: self.duration(&keys.transfer_timeout, "1h", &under(&at, &["transfer_timeout"])),
        })
    }
    pub(super) fn sftp(&mut self, keys: &SftpKeys) -> Option<Sftp> {
        let at = ["sftp".to_owned()];
        if !cfg!(feature = "sftp") {
            let what = "this packhorse was built without SFTP";
            self.problem(
                Problem::error(Code::UnknownName, &["sftp"], what)
                    .on_key()
                    .help("build it with the cargo feature `sftp`, which is on by default"),
            );
        }
        for (key, secret) in [("key", &keys.key), ("password", &keys.password)] {
            if let Some(secret) = secret {
                self.secret(secret, &under(&at, &[key]));
            }
        }
        if keys.key.is_none() && keys.password.is_none() {
            let what = "nothing says how we log in";
            self.problem(
                Problem::error(Code::MissingKey, &["sftp"], what)
                    .on_key()
                    .help("`key`, `password` or both: names of secret settings"),
            );
        }
        let address = self.template(&keys.address, Escape::None, &under(&at, &["address"]));
        let username = self.template(&keys.username, Escape::None, &under(&at, &["username"]));
        let host_keys = self.template(&keys.host_keys, Escape::None, &under(&at, &["host_keys"]));
        let folder = keys
            .folder
            .as_ref()
            .and_then(|folder| self.template(folder, Escape::None, &under(&at, &["folder"])));
        Some(Sftp {
            address: address?,
            username: username?,
            key: keys.key.clone(),
            password: keys.password.clone(),
            host_keys: host_keys?,
            folder,
            connect_timeout: self.duration(&keys.connect_timeout, "10s", &under(&at, &["connect_timeout"])),
            timeout: self.duration(&keys.timeout, "30s", &under(&at, &["timeout"])),
            transfer_timeout: self.duration(&keys.transfer_timeout, "1h", &under(&at, &["transfer_timeout"])),
        })
    }
}
