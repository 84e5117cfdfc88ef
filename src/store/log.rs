//! The log in front of the engine: what a commit writes goes here first, in one write and one sync.
//!
//! A log is a row of files, one for each generation. A file is a row of frames, ended by zeros or
//! by whatever its space held before:
//!
//! ```text
//! size of the writes, XXH3 of them       u32, u64
//! table, sizes of key and value          u8, u32, u32
//! key, value                             ..
//! ```
//!
//! Numbers are big-endian; the greatest size of a value says that the key is removed. The checksum
//! is seeded with the generation and the place in the file, so that nothing older is taken for a
//! frame. Invariant: a frame is whole on the disk before [`Log::append`] gives `Ok`; where it gives
//! an error the next frame takes the same place, so a disk that recovers needs nothing done.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes before the writes of a frame.
const HEAD_SIZE: usize = 12;

/// Bytes that an empty frame keeps for the next commit.
const FRAME_KEPT_MAX: usize = 1 << 20;

/// Space taken ahead of what is written, so that a sync has no new size to write.
const RESERVE_SIZE: u64 = 4 << 20;

/// Zeros of one write where space cannot be taken otherwise.
const FILL_SIZE: usize = 64 << 10;

/// The size of a value that is not there.
const REMOVED: u32 = u32::MAX;

/// The table of the last frame of a file that has a successor.
const SEAL: u8 = u8::MAX;

/// The name of a file that may be overwritten.
const SPARE: &str = "spare";

/// The writes of one commit, as they go into a frame.
#[derive(Debug, Default)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// Begins anew; what a huge commit needed is given back.
    pub(crate) fn begin(&mut self) {
        self.0.clear();
        self.0.shrink_to(FRAME_KEPT_MAX);
        self.0.resize(HEAD_SIZE, 0);
    }

    /// Adds a write: a value, or `None` for a removal.
    pub(crate) fn put(&mut self, table: u8, key: &[u8], value: Option<&[u8]>) {
        let size = value.map_or(REMOVED, |value| value.len() as u32);
        self.0.push(table);
        self.0.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.0.extend_from_slice(&size.to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value.unwrap_or_default());
    }

    fn finish(&mut self, generation: u64, place: u64) -> io::Result<()> {
        let writes = &self.0[HEAD_SIZE..];
        let size = u32::try_from(writes.len())
            .map_err(|_| io::Error::other("one commit has more than 4 GiB"))?;
        let hash = checksum(writes, generation, place);
        self.0[..4].copy_from_slice(&size.to_be_bytes());
        self.0[4..HEAD_SIZE].copy_from_slice(&hash.to_be_bytes());
        Ok(())
    }
}

fn checksum(writes: &[u8], generation: u64, place: u64) -> u64 {
    xxh3_64_with_seed(writes, (generation << 32) ^ place)
}

/// The file that commits go to.
#[derive(Debug)]
pub(crate) struct Log {
    directory: PathBuf,
    generation: u64,
    file: File,
    /// Where the next frame goes.
    size: u64,
    reserved: u64,
}

impl Log {
    /// Begins the file of `generation`, over one that is not needed any more where there is one.
    pub(crate) fn create(directory: &Path, generation: u64) -> io::Result<Log> {
        let path = path_of(directory, generation);
        match std::fs::rename(directory.join(SPARE), &path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // It holds messages: for its owner only.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        let reserved = file.metadata()?.len();
        File::open(directory)?.sync_all()?;
        Ok(Log {
            directory: directory.to_owned(),
            generation,
            file,
            size: 0,
            reserved,
        })
    }

    /// The number of this file.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of its frames.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Makes a frame durable.
    pub(crate) fn append(&mut self, frame: &mut Frame) -> io::Result<()> {
        frame.finish(self.generation, self.size)?;
        let end = self.size + frame.0.len() as u64;
        if end > self.reserved {
            let reserved = end.next_multiple_of(RESERVE_SIZE);
            let length = reserved - self.reserved;
            let flags = FallocateFlags::empty();
            let taken = rustix::fs::fallocate(&self.file, flags, self.reserved, length);
            fill_unless_taken(&self.file, self.reserved, length, taken)?;
            self.reserved = reserved;
        }
        let written = self.file.write_all_at(&frame.0, self.size);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // It may be on the disk for all that, and must not come back with the log.
            if let Err(error) = self.take_back(self.size) {
                tracing::error!(%error, "a commit that failed may be in the log");
            }
            return Err(error);
        }
        self.size = end;
        Ok(())
    }

    /// Forgets the frames from a place on; the next one goes there.
    pub(crate) fn take_back(&mut self, size: u64) -> io::Result<()> {
        self.size = size;
        self.file.write_all_at(&[0; HEAD_SIZE], size)?;
        self.file.sync_data()
    }

    /// Goes on in a file of the next generation.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        let next = Log::create(&self.directory, self.generation + 1)?;
        let mut last = Frame::default();
        last.begin();
        last.put(SEAL, &[], None);
        self.append(&mut last)?;
        *self = next;
        Ok(())
    }

    /// Gives the files before this one up; one of them is kept to be written over.
    pub(crate) fn remove_older(&self) -> io::Result<()> {
        for generation in generations(&self.directory)? {
            if generation < self.generation {
                let spare = self.directory.join(SPARE);
                std::fs::rename(path_of(&self.directory, generation), spare)?;
            }
        }
        Ok(())
    }
}

/// Writes zeros where the file system cannot take space ahead of what is written in it: a hole
/// would have every sync write where the next blocks are.
fn fill_unless_taken(
    file: &File,
    from: u64,
    length: u64,
    taken: rustix::io::Result<()>,
) -> io::Result<()> {
    match taken {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; FILL_SIZE];
            for place in (from..from + length).step_by(FILL_SIZE) {
                let size = (from + length - place).min(FILL_SIZE as u64);
                file.write_all_at(&zeros[..size as usize], place)?;
            }
            Ok(())
        }
        taken => Ok(taken?),
    }
}

fn path_of(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation:016x}"))
}

/// The generations that have a file, in their order.
pub(crate) fn generations(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().filter(|name| name.len() == 16);
        found.extend(number.and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// A write in a log: its generation and table, the key, the value if it is not a removal.
pub(crate) type Logged<'a> = (u64, u8, &'a [u8], Option<&'a [u8]>);

/// Calls `each` with every write from a generation on, and gives the last generation that has a
/// file. The last frame may be torn; whatever is behind it was never answered for.
pub(crate) fn replay(
    directory: &Path,
    from: u64,
    each: &mut dyn FnMut(Logged<'_>) -> Result<(), Box<str>>,
) -> Result<Option<u64>, Box<str>> {
    let cannot = |error: io::Error| format!("its log cannot be read: {error}");
    let (mut last, mut is_whole) = (None, true);
    for generation in generations(directory).map_err(cannot)? {
        if generation < from {
            continue;
        }
        let bytes = std::fs::read(path_of(directory, generation)).map_err(cannot)?;
        // A file may stop short of its seal only where the next one was not begun in earnest.
        let follows = last.is_none_or(|last| last + 1 == generation);
        if !(follows && is_whole) && frame_at(&bytes, generation, 0).is_some() {
            return Err(format!("its log is damaged before generation {generation:x}").into());
        }
        (last, is_whole) = (Some(generation), false);
        let mut place = 0;
        while let Some(writes) = frame_at(&bytes, generation, place) {
            place += HEAD_SIZE + writes.len();
            let mut rest = writes;
            while let Some((table, key, value, more)) = next_write(rest) {
                is_whole = table == SEAL;
                if !is_whole {
                    each((generation, table, key, value))?;
                }
                rest = more;
            }
        }
    }
    Ok(last)
}

/// The writes of the frame at a place, if there is a whole one.
fn frame_at(bytes: &[u8], generation: u64, place: usize) -> Option<&[u8]> {
    let (head, rest) = bytes.get(place..)?.split_first_chunk::<HEAD_SIZE>()?;
    let (size, hash) = head.split_first_chunk::<4>()?;
    let writes = rest.get(..u32::from_be_bytes(*size) as usize)?;
    let expected = checksum(writes, generation, place as u64).to_be_bytes();
    (!writes.is_empty() && hash == expected).then_some(writes)
}

type Write<'a> = (u8, &'a [u8], Option<&'a [u8]>, &'a [u8]);

fn next_write(writes: &[u8]) -> Option<Write<'_>> {
    let (table, rest) = writes.split_first()?;
    let (key_size, rest) = rest.split_first_chunk()?;
    let (value_size, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key_size) as usize)?;
    match u32::from_be_bytes(*value_size) {
        REMOVED => Some((*table, key, None, rest)),
        size => {
            let (value, rest) = rest.split_at_checked(size as usize)?;
            Some((*table, key, Some(value), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Scratch;

    type Found = Vec<(u64, Vec<u8>, Option<Vec<u8>>)>;

    fn read(directory: &Path, from: u64) -> Result<Found, Box<str>> {
        let mut found = Vec::new();
        replay(directory, from, &mut |(generation, table, key, value)| {
            assert_eq!(table, 3);
            found.push((generation, key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        })?;
        Ok(found)
    }

    fn append(log: &mut Log, key: &[u8], value: Option<&[u8]>) {
        let mut frame = Frame::default();
        frame.begin();
        frame.put(3, key, value);
        log.append(&mut frame).unwrap();
    }

    fn cut(directory: &Path, generation: u64, size: u64) {
        let path = path_of(directory, generation);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(size).unwrap();
    }

    #[test]
    fn what_was_appended_is_replayed_and_a_torn_end_is_not() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 7).unwrap();
        append(&mut log, b"a", Some(b"1"));
        append(&mut log, b"b", None);
        let whole = log.size();
        append(&mut log, b"c", Some(b""));
        let expected = [
            (7, b"a".to_vec(), Some(b"1".to_vec())),
            (7, b"b".to_vec(), None),
            (7, b"c".to_vec(), Some(Vec::new())),
        ];
        assert_eq!(read(&scratch.0, 0).unwrap(), expected);
        for size in (whole..log.size()).rev() {
            cut(&scratch.0, 7, size);
            assert_eq!(read(&scratch.0, 0).unwrap(), expected[..2], "{size}");
        }
    }

    #[test]
    fn a_file_that_is_written_over_shows_nothing_of_what_it_was() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        for number in 0..100_u8 {
            append(&mut log, &[number], Some(&[number; 50]));
        }
        log.rotate().unwrap();
        assert_eq!(read(&scratch.0, 1).unwrap().len(), 100);
        assert_eq!(read(&scratch.0, 2).unwrap(), []);
        log.remove_older().unwrap();
        append(&mut log, b"x", None);
        log.rotate().unwrap();
        assert_eq!(generations(&scratch.0).unwrap(), [2, 3]);
        assert_eq!(read(&scratch.0, 3).unwrap(), []);
        append(&mut log, &[0], Some(&[9; 50]));
        let expected = [(2, b"x".to_vec(), None), (3, vec![0], Some(vec![9; 50]))];
        assert_eq!(read(&scratch.0, 1).unwrap(), expected);
    }

    #[test]
    fn what_is_taken_back_is_not_replayed() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", None);
        let before = log.size();
        append(&mut log, b"b", Some(&[7; 100]));
        log.take_back(before).unwrap();
        assert_eq!(read(&scratch.0, 0).unwrap(), [(1, b"a".to_vec(), None)]);
        append(&mut log, b"c", None);
        let keys = read(&scratch.0, 0)
            .unwrap()
            .into_iter()
            .map(|(_, key, _)| key);
        assert_eq!(keys.collect::<Vec<_>>(), [b"a".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_gap_before_a_written_file_is_damage_and_one_before_an_empty_file_is_not() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", Some(b"1"));
        let unsealed = log.size();
        log.rotate().unwrap();
        cut(&scratch.0, 1, unsealed);
        assert_eq!(read(&scratch.0, 0).unwrap().len(), 1);
        append(&mut log, b"b", Some(b"2"));
        assert!(read(&scratch.0, 0).unwrap_err().contains("damaged"));
        std::fs::remove_file(path_of(&scratch.0, 1)).unwrap();
        assert_eq!(
            read(&scratch.0, 0).unwrap().len(),
            1,
            "what is older is not missed"
        );
    }

    #[test]
    fn a_file_system_that_takes_no_space_ahead_gets_zeros() {
        let scratch = Scratch::new();
        let path = scratch.0.join("file");
        for error in [Errno::OPNOTSUPP, Errno::NOSYS] {
            std::fs::write(&path, b"before").unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let length = 2 * FILL_SIZE + 7;
            fill_unless_taken(&file, 6, length as u64, Err(error)).unwrap();
            let expected = [b"before".to_vec(), vec![0; length]].concat();
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            fill_unless_taken(&file, 0, 6, Ok(())).unwrap();
            fill_unless_taken(&file, 0, 6, Err(Errno::NOSPC)).unwrap_err();
            assert_eq!(std::fs::read(&path).unwrap(), expected);
        }
    }
}
