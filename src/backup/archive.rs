//! The archive: a gzipped tar whose first member says what it is and whose last lists the others with their checksums.
//!
//! In: members one after the other. Out: the same, each held to its checksum. Reading stops at the first thing that is not as it was
//! written. Memory is bounded: members are streamed, only the list of contents is held.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ABOUT, About, CONTENTS, CONTROL, FORMAT, JOURNAL, Outcome, STORE, TABLES};

/// Most bytes of the first and of the last member.
const TEXT_MAX: u64 = 64 * 1024 * 1024;
/// Names are short.
const NAME_MAX: usize = 90;

/// One member as the list of contents has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Writes an archive.
pub(super) struct Writer {
    tar: tar::Builder<GzEncoder<BufWriter<File>>>,
    members: Vec<Member>,
    mtime: u64,
}

impl Writer {
    pub(super) fn new(file: File, mtime: u64) -> Self {
        let out = GzEncoder::new(BufWriter::with_capacity(256 * 1024, file), Compression::fast());
        Self { tar: tar::Builder::new(out), members: Vec::new(), mtime }
    }

    /// Adds a member of exactly `bytes` bytes.
    pub(super) fn add(&mut self, name: &str, bytes: u64, content: impl Read, done: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        let mut content = Hashed::new(content.take(bytes), done);
        self.tar.append_data(&mut header, name, &mut content)?;
        if content.bytes != bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter while it was copied")));
        }
        self.members.push(Member { name: name.to_owned(), bytes, sha256: content.sum() });
        Ok(())
    }

    /// Adds the list of contents, and syncs the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let contents = serde_json::to_vec(&self.members)?;
        self.add(CONTENTS, contents.len() as u64, &contents[..], &mut |_| {})?;
        let file = self.tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

/// Counts and sums what is read through it.
struct Hashed<'a, R> {
    from: R,
    bytes: u64,
    sha256: Sha256,
    done: &'a mut dyn FnMut(u64),
}

impl<'a, R: Read> Hashed<'a, R> {
    fn new(from: R, done: &'a mut dyn FnMut(u64)) -> Self {
        Self { from, bytes: 0, sha256: Sha256::new(), done }
    }

    fn sum(self) -> String {
        hex::encode(self.sha256.finalize())
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        self.sha256.update(&buf[..read]);
        self.bytes += read as u64;
        (self.done)(read as u64);
        Ok(read)
    }
}

/// What is done with a member: its name, its length and its bytes, of which any rest is read past.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&str, u64, &mut dyn Read) -> Outcome<()>;

/// Reads a whole archive, gives `visit` every member between the first and the last, and holds all of them to their checksums.
/// What `visit` was given is proved only when this returns.
pub(super) fn read(
    path: &Path,
    about: &mut dyn FnMut(&About) -> Outcome<()>,
    visit: Visit<'_>,
    done: &mut dyn FnMut(u64),
) -> Outcome<()> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| format!("{shown}: {error}"))?;
    let broken = |error: io::Error| format!("{shown} is damaged or no backup: {error}");
    let mut tar = tar::Archive::new(MultiGzDecoder::new(Counted { from: BufReader::with_capacity(256 * 1024, file), done }));
    let (mut members, mut contents): (Vec<Member>, Option<Vec<Member>>) = (Vec::new(), None);
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let bytes = entry.size();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if contents.is_some() || entry.header().entry_type() != tar::EntryType::Regular || !is_ours(&name, members.is_empty()) {
            return Err(format!("{shown} holds {name:?}, which no backup does"));
        }
        let mut ignore = |_| {};
        let mut content = Hashed::new(&mut entry, &mut ignore);
        match name.as_str() {
            ABOUT => about(&understood(&text(&mut content, bytes).map_err(broken)?, path)?)?,
            CONTENTS => {
                let listed = text(&mut content, bytes).map_err(broken)?;
                contents = Some(serde_json::from_slice(&listed).map_err(|error| broken(error.into()))?);
                continue;
            }
            _ => visit(&name, bytes, &mut content)?,
        }
        io::copy(&mut content, &mut io::sink()).map_err(broken)?;
        members.push(Member { bytes: content.bytes, sha256: content.sum(), name });
    }
    // To the very end: gzip has a checksum of its own behind the last member.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(broken)?;
    match contents {
        None => Err(format!("{shown} is cut off: its list of contents is missing")),
        Some(contents) if contents == members => Ok(()),
        Some(contents) => {
            let wrong = contents.iter().zip(&members).find(|(listed, found)| listed != found);
            let name = wrong.map_or("a member", |(listed, _)| listed.name.as_str());
            Err(format!("{shown} is damaged: {name} is not what was written"))
        }
    }
}

/// Whether a member of that name may stand there. Nothing else is ever unpacked, so no name can lead elsewhere.
fn is_ours(name: &str, first: bool) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    let parts = |rest: &str, most: usize| rest.split('/').count() <= most && rest.split('/').all(plain);
    if first || name == ABOUT {
        return first && name == ABOUT;
    }
    name.len() <= NAME_MAX
        && (matches!(name, CONTROL | STORE | CONTENTS)
            || name.strip_prefix(TABLES).is_some_and(|rest| parts(rest, 2))
            || name.strip_prefix(JOURNAL).is_some_and(|rest| parts(rest, 2)))
}

fn text(content: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if bytes > TEXT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a text in it is too long"));
    }
    content.read_to_end(&mut text)?;
    Ok(text)
}

fn understood(text: &[u8], path: &Path) -> Outcome<About> {
    let shown = path.display();
    let format = serde_json::from_slice::<serde_json::Value>(text).ok().and_then(|about| about["format"].as_u64());
    if format.is_some_and(|format| format > u64::from(FORMAT)) {
        return Err(format!("{shown} was made by a newer belayd, in a format that this one cannot read; restore it with that one"));
    }
    serde_json::from_slice(text).map_err(|error| format!("{shown} is no backup of belayd's: {error}"))
}

/// Counts the compressed bytes, whose number is known beforehand.
struct Counted<'a, R> {
    from: R,
    done: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        (self.done)(read as u64);
        Ok(read)
    }
}

/// Writes a JSON text as the first member.
pub(super) fn add_about(writer: &mut Writer, about: &About) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(about)?;
    text.write_all(b"\n")?;
    writer.add(ABOUT, text.len() as u64, &text[..], &mut |_| {})
}
