//! What the settings of an SFTP server say: its address, and the fingerprints of its host keys. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// The fingerprints in a setting, separated by spaces or commas: `SHA256:` and 43 characters, as OpenSSH prints them.
///
/// # Errors
/// One that is none, in words; or none at all.
pub fn fingerprints(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for part in text.split([' ', ',', '\t', '\n']).filter(|part| !part.is_empty()) {
        let digest = part.strip_prefix("SHA256:").map(|digest| digest.trim_end_matches('='));
        let bytes = digest.and_then(|digest| STANDARD_NO_PAD.decode(digest).ok());
        match (digest, bytes) {
            (Some(digest), Some(bytes)) if bytes.len() == 32 => found.push(format!("SHA256:{digest}")),
            _ => return Err(format!("`{part}` is not a fingerprint: `SHA256:` and 43 characters")),
        }
    }
    match found.is_empty() {
        true => Err("no host key is pinned: anybody could pass for the server".to_owned()),
        false => Ok(found),
    }
}

/// Host and port of `host`, `host:port`, `[::1]:port` or the same behind `sftp://`; 22 if no port is said.
///
/// # Errors
/// What is wrong with it, in words.
pub fn host(text: &str) -> Result<(String, u16), String> {
    let text = text.trim().strip_prefix("sftp://").unwrap_or(text.trim()).trim_end_matches('/');
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(['/', '@']) {
        return Err("an address is `host` or `host:port`, without user, password and folder".to_owned());
    }
    let port = match port.map(str::parse::<u16>) {
        None => 22,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err("the port is not a number from 1 to 65535".to_owned()),
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_what_openssh_prints() {
        let good = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDXtQxk1qYQxWv0S0c";
        assert_eq!(fingerprints(&format!("{good}  {good}=")).unwrap(), [good, good]);
        for bad in ["", " ", "MD5:16:27:ac:a5", "SHA256:short", &good[7..], &good.replace("SHA256", "sha256")]
        {
            assert!(fingerprints(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for (text, is) in [
            ("files.example", ("files.example", 22)),
            ("files.example:2222", ("files.example", 2222)),
            ("sftp://files.example/", ("files.example", 22)),
            ("[::1]:2022", ("::1", 2022)),
        ] {
            assert_eq!(host(text).unwrap(), (is.0.to_owned(), is.1), "{text}");
        }
        for bad in ["", ":22", "a:0", "a:x", "user@a", "a/folder", "[::1"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
