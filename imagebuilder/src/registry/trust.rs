//! The certificates that a registry has of its own, and ours for it, where docker keeps them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reqwest::{Certificate, ClientBuilder, Identity};

use super::{Options, error::Cause};

/// What one registry is trusted by, and trusts us by.
#[derive(Debug, Default)]
pub(super) struct Trust {
    certificates: Vec<Certificate>,
    identity: Option<Identity>,
}

/// The folder of a registry's certificates, if it has one.
pub(super) fn folder(options: &Options, authority: &str) -> Option<PathBuf> {
    // An authority has no slash; one of dots alone would lead elsewhere.
    if authority.is_empty() || authority.contains('/') || authority.starts_with('.') {
        return None;
    }
    options.certificates.iter().map(|it| it.join(authority)).find(|it| it.is_dir())
}

impl Trust {
    /// Reads what `options` name for all registries, and what is in the `folder` of one.
    pub(super) fn read(options: &Options, folder: Option<&Path>) -> Result<Self, Cause> {
        let mut trust = Self::default();
        for file in &options.authorities {
            trust.add_authorities(file)?;
        }
        if let Some(folder) = folder {
            trust.add_folder(folder)?;
        }
        Ok(trust)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), Cause> {
        let entries = fs::read_dir(folder).map_err(|err| unreadable(folder, &err))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|it| it.to_str()) {
                Some("crt") => self.add_authorities(&file)?,
                Some("cert") => self.add_identity(&file)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn add_authorities(&mut self, file: &Path) -> Result<(), Cause> {
        let found = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
        if found.is_empty() {
            return Err(Cause::said(format!("`{}` holds no certificate in PEM", file.display())));
        }
        self.certificates.extend(found);
        Ok(())
    }

    fn add_identity(&mut self, file: &Path) -> Result<(), Cause> {
        let key = file.with_extension("key");
        let both = [read(file)?, b"\n".to_vec(), read(&key)?].concat();
        let identity = Identity::from_pem(&both).map_err(|_| {
            let (file, key) = (file.display(), key.display());
            Cause::said(format!("`{file}` and `{key}` are no certificate with its key in PEM"))
        })?;
        self.identity = Some(identity);
        Ok(())
    }

    /// A client that trusts these certificates beside those of this machine; where it has none
    /// (an image `FROM scratch`), beside `roots`.
    pub(super) fn client(
        &self,
        builder: impl Fn() -> ClientBuilder,
        roots: impl Iterator<Item = Certificate>,
    ) -> Result<reqwest::Client, Cause> {
        let known = || {
            let builder = builder();
            match &self.identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        };
        let extra = || self.certificates.iter().cloned();
        let of_host = if self.certificates.is_empty() {
            known().build()
        } else {
            known().tls_certs_merge(extra()).build()
        };
        if let Ok(client) = of_host {
            return Ok(client);
        }
        let client = known().tls_certs_only(roots.chain(extra())).build();
        client.map_err(|it| Cause::of(&it))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Cause> {
    fs::read(file).map_err(|err| unreadable(file, &err))
}

fn unreadable(path: &Path, err: &io::Error) -> Cause {
    Cause::said(format!("`{}` cannot be read: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_folder_is_found_by_its_host_and_port() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a.com:5000")).unwrap();
        let certificates = vec![folder.path().join("none"), folder.path().to_owned()];
        let options = Options { certificates, ..Options::default() };
        for (authority, want) in
            [("a.com:5000", true), ("a.com", false), ("..", false), (".", false), ("", false)]
        {
            assert_eq!(super::folder(&options, authority).is_some(), want, "for `{authority}`");
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let told = |name: &str, content: &str| {
            let file = folder.path().join(name);
            fs::write(&file, content).unwrap();
            let told = Trust::read(&Options::default(), Some(folder.path())).unwrap_err();
            fs::remove_file(file).unwrap();
            told.to_string().replace(&folder.path().display().to_string(), "DIR")
        };
        assert_eq!(told("ca.crt", "no"), "`DIR/ca.crt` holds no certificate in PEM");
        assert_eq!(
            told("client.cert", "no"),
            "`DIR/client.key` cannot be read: No such file or directory (os error 2)"
        );
    }
}
