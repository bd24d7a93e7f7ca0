//! One file from the hub into the cache. It is written under the name of its content
//! with `.incomplete`, and gets its name when its size and, where the hub gives one,
//! its sha256 are right. What is there of a broken download is kept and gone on from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;

use sha2::{Digest, Sha256};

use super::cache::{Repo, create_parent};
use super::error::HubError;
use super::http::{Client, Meta, NoReply, Reply, header};
use super::progress::Progress;
use super::settings::Settings;
use crate::digest::hex;

/// Tries without a byte gained before a file is given up.
const TRIES: u32 = 4;
const BUFFER: usize = 1 << 20;

pub(super) struct Downloader<'a> {
    client: Client,
    settings: &'a Settings,
    repo: &'a Repo,
}

/// A download that goes on.
struct Partial {
    file: File,
    length: u64,
    hash: Sha256,
}

/// Why a try ended.
enum Stop {
    /// It may go better next time.
    Passing(String),
    Final(HubError),
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Downloader<'a> {
    pub fn new(settings: &'a Settings, repo: &'a Repo) -> Result<Self, HubError> {
        Ok(Self {
            client: Client::new(settings)?,
            settings,
            repo,
        })
    }

    /// Brings `file` into the snapshot of `revision` and gives its commit; `None`
    /// where the model has no such file.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn fetch(&self, revision: &str, file: &str) -> Result<Option<String>, HubError> {
        let url = format!(
            "{}/{}/resolve/{}/{file}",
            self.settings.endpoint,
            self.repo.name,
            revision.replace('/', "%2F")
        );
        let mut pause = self.settings.pause;
        let (mut tries, mut had) = (0, 0);
        loop {
            let (outcome, length) = self.attempt(&url, revision, file);
            let cause = match outcome {
                Ok(commit) => return Ok(commit),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Passing(cause)) => cause,
            };
            if length > had {
                (had, tries, pause) = (length, 0, self.settings.pause);
            }
            tries += 1;
            if tries == TRIES {
                return Err(match had {
                    0 => self.unreachable(cause),
                    _ => HubError::Broken {
                        model: self.repo.name.clone(),
                        file: file.to_string(),
                        cause,
                    },
                });
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }

    /// One try, and the bytes that are there after it.
    fn attempt(
        &self,
        url: &str,
        revision: &str,
        file: &str,
    ) -> (Result<Option<String>, Stop>, u64) {
        let reply = match self.get(url, 0) {
            Ok(reply) => reply,
            Err(stop) => return (Err(stop), 0),
        };
        match self.accept(&reply, revision, file) {
            Ok(true) => {}
            Ok(false) => return (Ok(None), 0),
            Err(stop) => return (Err(stop), 0),
        }
        let mut length = 0;
        let outcome = self.store(reply, file, &mut length);
        (outcome.map(Some), length)
    }

    fn get(&self, url: &str, from: u64) -> Result<Reply, Stop> {
        self.client.get(url, from).map_err(|why| match why {
            NoReply::Network(cause) => Stop::Passing(cause),
            NoReply::Redirects(to) => {
                Stop::Final(self.not_a_hub(&format!("it redirects without end, to {to}")))
            }
        })
    }

    /// Whether the reply has the file; false: the model has none.
    fn accept(&self, reply: &Reply, revision: &str, file: &str) -> Result<bool, Stop> {
        let status = reply.response.status().as_u16();
        let headers = reply.response.headers();
        let code = header(headers, "x-error-code");
        let model = self.repo.name.clone();
        let page = format!("{}/{model}", self.settings.endpoint);
        let token = self.client.has_token();
        let error = match (status, code.as_deref()) {
            (200, _) => return Ok(true),
            (401 | 403, Some("GatedRepo")) => HubError::Gated { model, page, token },
            (404, Some("RevisionNotFound")) => HubError::NoRevision {
                model,
                revision: revision.to_string(),
                page,
            },
            (404, Some("EntryNotFound")) => return Ok(false),
            (401 | 404, Some("RepoNotFound")) | (401, None) => {
                HubError::NotFound { model, page, token }
            }
            // A mirror that gives no codes: the first file tells.
            (404, _) if file != "config.json" => return Ok(false),
            (404, _) => HubError::NotFound { model, page, token },
            (408 | 429 | 500..=599, _) => {
                return Err(Stop::Passing(format!("the hub answers {status}")));
            }
            _ => HubError::Refused {
                model,
                status,
                message: header(headers, "x-error-message")
                    .map_or_else(String::new, |m| format!(", {}", m.trim())),
            },
        };
        Err(Stop::Final(error))
    }

    /// Writes the file of `reply` to its place. `length` becomes the bytes there are.
    fn store(&self, reply: Reply, file: &str, length: &mut u64) -> Result<String, Stop> {
        let Meta { commit, etag, size } = reply.meta.clone();
        let safe = |text: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            !text.is_empty() && text.len() <= 128 && text.chars().all(plain)
        };
        let commit = commit
            .filter(safe)
            .ok_or_else(|| self.not_a_hub("no header X-Repo-Commit"))?;
        let etag = etag
            .filter(safe)
            .ok_or_else(|| self.not_a_hub("no header ETag"))?;
        let size = size.or_else(|| reply.response.body().content_length());
        let blob = self.repo.blobs().join(&etag);
        create_parent(&blob)?;
        let _lock = self.lock(&etag)?;
        let whole = fs::metadata(&blob).is_ok_and(|m| size.is_none_or(|s| s == m.len()));
        if !whole {
            let incomplete = self.repo.blobs().join(format!("{etag}.incomplete"));
            let mut partial = Partial::open(&incomplete, size)
                .map_err(|e| HubError::io("write", &incomplete, e))?;
            *length = partial.length;
            let written = self.receive(reply, file, size, &mut partial, &incomplete);
            *length = partial.length;
            written?;
            self.check(file, &etag, size, partial, &incomplete)?;
            fs::rename(&incomplete, &blob).map_err(|e| HubError::io("write", &blob, e))?;
        }
        self.repo.link(&commit, file, &etag)?;
        Ok(commit)
    }

    /// Reads the rest of the file into `partial`.
    fn receive(
        &self,
        reply: Reply,
        file: &str,
        size: Option<u64>,
        partial: &mut Partial,
        path: &Path,
    ) -> Result<(), Stop> {
        if partial.length > 0 && Some(partial.length) == size {
            return Ok(());
        }
        let fail = |e| HubError::io("write", path, e);
        let mut response = reply.response;
        if partial.length > 0 {
            let url = reply.url.clone();
            drop(response);
            let rest = self.get(&url, partial.length)?;
            let begins = format!("bytes {}-", partial.length);
            let range = header(rest.response.headers(), "content-range");
            match rest.response.status().as_u16() {
                206 if range.is_some_and(|r| r.starts_with(&begins)) => {}
                // The server sends the whole file, or another part.
                200 => partial.restart().map_err(fail)?,
                status => {
                    partial.restart().map_err(fail)?;
                    return Err(Stop::Passing(format!("no range, but {status}")));
                }
            }
            response = rest.response;
        }
        let bar = Progress::start(&self.repo.name, file, partial.length, size);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Stop::Passing(e.to_string())),
            };
            partial.add(&buffer[..read]).map_err(fail)?;
            bar.add(read);
            if size.is_some_and(|size| partial.length > size) {
                break;
            }
        }
        match size {
            Some(size) if partial.length < size => Err(Stop::Passing(format!(
                "{} of {size} bytes came",
                partial.length
            ))),
            _ => Ok(()),
        }
    }

    /// Size and hash of what was received; damaged files go.
    fn check(
        &self,
        file: &str,
        etag: &str,
        size: Option<u64>,
        partial: Partial,
        path: &Path,
    ) -> Result<(), HubError> {
        let is_sha256 = etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit());
        let hash = hex(&partial.hash.finalize());
        let what = match size {
            Some(size) if size != partial.length => {
                format!("{} bytes instead of {size}", partial.length)
            }
            _ if is_sha256 && hash != etag.to_ascii_lowercase() => {
                "its sha256 is not the hub's".to_string()
            }
            _ => {
                let sync = partial.file.sync_all();
                return sync.map_err(|e| HubError::io("write", path, e));
            }
        };
        fs::remove_file(path).map_err(|e| HubError::io("remove", path, e))?;
        Err(HubError::Damaged {
            model: self.repo.name.clone(),
            file: file.to_string(),
            what,
        })
    }

    /// Waits until no other process fetches the same content.
    fn lock(&self, etag: &str) -> Result<File, HubError> {
        let repo = self.repo.dir.file_name().unwrap_or_default();
        let path = self.settings.cache.join(".locks").join(repo);
        let path = path.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let fail = |e| HubError::io("lock", &path, e);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(fail)?;
        file.lock().map_err(fail)?;
        Ok(file)
    }

    fn unreachable(&self, cause: String) -> HubError {
        HubError::Unreachable {
            model: self.repo.name.clone(),
            host: self.settings.endpoint.clone(),
            cause,
        }
    }

    fn not_a_hub(&self, what: &str) -> HubError {
        HubError::NotAHub {
            model: self.repo.name.clone(),
            endpoint: self.settings.endpoint.clone(),
            what: what.to_string(),
        }
    }
}

impl Partial {
    /// What is there at `path`, hashed; more than `size` bytes cannot be right.
    fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut partial = Self {
            file: options.open(path)?,
            length: 0,
            hash: Sha256::new(),
        };
        // Without a size there is no telling whether what is there is the beginning.
        match size {
            Some(size) if partial.file.metadata()?.len() <= size => {
                let mut buffer = vec![0; BUFFER];
                loop {
                    let read = partial.file.read(&mut buffer)?;
                    if read == 0 {
                        return Ok(partial);
                    }
                    partial.hash.update(&buffer[..read]);
                    partial.length += read as u64;
                }
            }
            _ => {
                partial.restart()?;
                Ok(partial)
            }
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}
