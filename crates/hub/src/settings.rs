//! What the environment says: where the hub is, where the cache is, who is asking.
//!
//! The variables are those of the `huggingface_hub` library, so that both find the same files:
//! <https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Cache, Error, Result};

/// The hub where no other is named.
pub const HUB: &str = "https://huggingface.co";

/// A hub, what it is asked with, and where its files go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_ENDPOINT`: the address of the hub, without a slash at the end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`: the folder of the cache.
    pub cache: Cache,
    /// `HF_TOKEN`, or the content of the file `HF_TOKEN_PATH`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: no request is made.
    pub offline: bool,
    /// The user's aliases and registries: `imaginal/aliases.toml` in the configuration folder, or `IMAGINAL_ALIASES`.
    pub aliases: PathBuf,
    /// `SSL_CERT_FILE`: certificates to trust in place of Mozilla's.
    pub certificates: Option<PathBuf>,
    /// How long to wait for a connection, an answer, or more of it.
    pub timeout: Duration,
    /// The first pause before a request is repeated; it doubles each time.
    pub pause: Duration,
}

/// A secret, and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The secret.
    pub secret: String,
    /// The variable or file.
    pub source: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token from {}", self.source)
    }
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// [`Error::Name`] for an endpoint that is no address, [`Error::File`] for a token file that cannot be read.
    pub fn from_env() -> Result<Settings> {
        Settings::from(std::env::home_dir(), |key| std::env::var(key).ok())
    }

    /// The settings of a home folder and an environment.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from(home: Option<PathBuf>, env: impl Fn(&str) -> Option<String>) -> Result<Settings> {
        let get = |key: &str| env(key).filter(|v| !v.trim().is_empty());
        let home = home.unwrap_or_else(|| PathBuf::from("."));
        let path = |text: String| match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
                home.join(rest.trim_start_matches(['/', '\\']))
            }
            _ => PathBuf::from(text),
        };
        let yes = |key: &str| get(key).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        let under = |key: &str, default: &str| get(key).map_or_else(|| home.join(default), path);

        let hf_home = get("HF_HOME").map_or_else(|| under("XDG_CACHE_HOME", ".cache").join("huggingface"), path);
        let cache =
            get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")).map_or_else(|| hf_home.join("hub"), path);
        let token_file = get("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), path);
        let variable = |key: &str| get(key).and_then(|text| Token::new(&text, key));
        let token = match variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(token),
            None if yes("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            None => Token::read(&token_file)?,
        };
        let aliases = match get("IMAGINAL_ALIASES") {
            Some(file) => path(file),
            None if cfg!(windows) => under("APPDATA", "AppData/Roaming").join("imaginal/aliases.toml"),
            None => under("XDG_CONFIG_HOME", ".config").join("imaginal/aliases.toml"),
        };
        let seconds = get("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|s| s.parse().ok()).filter(|s| *s > 0).unwrap_or(30);
        Ok(Settings {
            endpoint: endpoint(&get("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned()), "HF_ENDPOINT")?,
            cache: Cache::new(cache),
            token,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            aliases,
            certificates: get("SSL_CERT_FILE").or_else(|| get("REQUESTS_CA_BUNDLE")).map(path),
            timeout: Duration::from_secs(seconds),
            pause: Duration::from_secs(1),
        })
    }
}

impl Token {
    /// A token from a text that may have spaces and lines around it; `None` if nothing is left.
    pub fn new(text: &str, source: &str) -> Option<Token> {
        let secret = text.trim();
        (!secret.is_empty()).then(|| Token { secret: secret.to_owned(), source: source.to_owned() })
    }

    /// The token in a file; `None` where there is no such file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read.
    pub fn read(file: &Path) -> Result<Option<Token>> {
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Token::new(&text, &file.to_string_lossy())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(file, "read the token", e)),
        }
    }
}

/// The address of a hub, without a slash at the end.
pub(crate) fn endpoint(text: &str, from: &str) -> Result<String> {
    let text = text.trim().trim_end_matches('/');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' '])) {
        true => Ok(text.to_owned()),
        false => Err(Error::Name {
            name: text.to_owned(),
            problem: format!("{from} must be the address of a hub, such as {HUB}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from(Some("/h".into()), |key| pairs.iter().find(|p| p.0 == key).map(|p| p.1.to_owned())).unwrap()
    }

    #[test]
    fn the_cache_is_where_the_variables_put_it() {
        let cache = |pairs: &[(&str, &str)]| settings(pairs).cache.root().to_path_buf();
        assert_eq!(cache(&[]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/y")]), Path::new("/h/y/hub"));
        assert_eq!(cache(&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/z")]), Path::new("/z"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(settings(&[("XDG_CONFIG_HOME", "/c")]).aliases, Path::new("/c/imaginal/aliases.toml"));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        std::fs::write(&file, "  from-file\n").unwrap();
        let file = file.to_str().unwrap();
        let token = |pairs: &[(&str, &str)]| settings(pairs).token.map(|t| t.secret);
        assert_eq!(token(&[("HF_TOKEN_PATH", file)]).as_deref(), Some("from-file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file), ("HF_TOKEN", " mine ")]).as_deref(), Some("mine"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file), ("HF_TOKEN", "")]).as_deref(), Some("from-file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_TOKEN_PATH", "/nowhere/token")]), None);
        assert!(!format!("{:?}", settings(&[("HF_TOKEN", "secret")])).contains("secret\""));
        assert!(!format!("{:?}", settings(&[("HF_TOKEN", "hush")])).contains("hush"));
    }

    #[test]
    fn endpoint_and_offline() {
        assert_eq!(settings(&[("HF_ENDPOINT", "http://localhost:8/")]).endpoint, "http://localhost:8");
        assert_eq!(settings(&[]).endpoint, HUB);
        assert!(Settings::from(None, |k| (k == "HF_ENDPOINT").then(|| "ftp://x".into())).is_err());
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).offline && settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
