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
//! frame, and a whole frame behind a broken one tells damage from a torn end. Invariant: a frame is
//! whole on the disk before [`Log::append`] gives `Ok`; where it gives an error the next frame
//! takes the same place, so a disk that recovers needs nothing done.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::opening::damage;

/// Bytes before the writes of a frame.
const HEAD_SIZE: usize = 12;

/// Bytes that an empty frame keeps for the next commit.
const FRAME_KEPT_MAX: usize = 1 << 20;

/// Space taken ahead of what is written, so that a sync has no new size to write.
pub(crate) const RESERVE_SIZE: u64 = if cfg!(test) { 64 << 10 } else { 4 << 20 };

/// Zeros of one write where space cannot be taken otherwise.
const FILL_SIZE: usize = 64 << 10;

/// The size of a value that is not there.
const REMOVED: u32 = u32::MAX;

/// The table of the last frame of a file that has a successor.
const ENDED: u8 = u8::MAX;

/// Every size that a file of the log has, cut off by a crash or not, is a multiple of it.
const SECTOR_SIZE: usize = 512;

/// How often its size is hashed of a file at most while a frame is looked for behind a damaged one:
/// what looks like a frame mostly is one of an earlier generation, and these do not overlap.
const SEARCH_FACTOR: usize = 4;

/// Zeros that are passed over at once.
const ZEROS_SIZE: usize = 64;

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
        let mut log = Log {
            directory: directory.to_owned(),
            generation,
            reserved: file.metadata()?.len(),
            file,
            size: 0,
        };
        // One that is shorter at an opening has lost what it had. A full disk may have left a part.
        log.reserve(RESERVE_SIZE)?;
        log.file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(log)
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
        self.reserve(end)?;
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

    /// Takes space for what ends there.
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        if end > self.reserved {
            let reserved = end.next_multiple_of(RESERVE_SIZE);
            let length = reserved - self.reserved;
            let flags = FallocateFlags::empty();
            let taken = rustix::fs::fallocate(&self.file, flags, self.reserved, length);
            fill_unless_taken(&self.file, self.reserved, length, taken)?;
            self.reserved = reserved;
        }
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
        last.put(ENDED, &[], None);
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

/// Calls `each` with every write from a generation on, and gives the generation that a new file
/// follows: empty ones behind it are of openings that came no further, and are begun again. The
/// last frame may be torn; whatever is behind it was never answered for. `sealed` is a file that
/// had its frames up to a place at least.
pub(crate) fn replay(
    directory: &Path,
    from: u64,
    sealed: Option<(u64, u64)>,
    each: &mut dyn FnMut(Logged<'_>) -> Result<(), Box<str>>,
) -> Result<Option<u64>, Box<str>> {
    let cannot = |error: io::Error| format!("its log cannot be read: {error}");
    let mut files = generations(directory).map_err(cannot)?;
    let is_first_missing = !files.contains(&from) && (from > 0 || !files.is_empty());
    files.retain(|generation| *generation >= from);
    if is_first_missing {
        return Err(missing(directory, from));
    }
    if let Some((sealed, _)) = sealed.filter(|(sealed, _)| *sealed >= from)
        && !files.contains(&sealed)
    {
        return Err(missing(directory, sealed));
    }
    let (mut last, mut used, mut is_whole) = (None, None, true);
    for generation in files {
        let path = path_of(directory, generation);
        let bytes = std::fs::read(&path).map_err(cannot)?;
        // A file may stop short of its seal only where the next one was not begun in earnest.
        let follows = last.is_none_or(|last| last + 1 == generation);
        if !(follows && is_whole) && frame_at(&bytes, generation, 0).is_some() {
            return Err(damage(&format!(
                "its log lacks commits before those in {}",
                path.display()
            )));
        }
        (last, is_whole) = (Some(generation), false);
        let mut place = 0;
        while let Some(writes) = frame_at(&bytes, generation, place) {
            place += HEAD_SIZE + writes.len();
            let mut rest = writes;
            while let Some((table, key, value, more)) = next_write(rest) {
                is_whole = table == ENDED;
                if !is_whole {
                    each((generation, table, key, value))?;
                }
                rest = more;
            }
        }
        if place > 0 || used.is_none() {
            used = Some(generation);
        }
        let is_short = sealed.is_some_and(|(sealed, size)| {
            let is_taken = bytes.len() as u64 >= RESERVE_SIZE;
            sealed == generation && !(is_taken && place as u64 >= size)
        });
        let is_cut = is_short || !bytes.len().is_multiple_of(SECTOR_SIZE);
        if is_cut || is_followed(&bytes, generation, place) {
            return Err(damage(&format!(
                "its log {} is damaged at byte {place}, and commits are lost",
                path.display()
            )));
        }
    }
    match last {
        Some(last) if is_whole => Err(missing(directory, last + 1)),
        _ => Ok(used),
    }
}

fn missing(directory: &Path, generation: u64) -> Box<str> {
    let path = path_of(directory, generation);
    damage(&format!("its log {} is missing", path.display()))
}

/// Whether there is a whole frame behind a place that has none. A frame is written when the one
/// before it is on the disk, so that one was damaged there, and is not torn. What the file's space
/// held before has other generations.
fn is_followed(bytes: &[u8], generation: u64, place: usize) -> bool {
    let mut hashed_max = bytes.len().saturating_mul(SEARCH_FACTOR);
    let mut place = place + 1;
    while let Some(rest) = bytes.get(place..).filter(|rest| rest.len() > HEAD_SIZE) {
        // Most of it is space taken ahead; a frame may begin in the zeros' last few.
        if rest.starts_with(&[0; ZEROS_SIZE]) {
            place += ZEROS_SIZE - size_of::<u32>() + 1;
            continue;
        }
        if let Some(size) = frame_like_at(rest) {
            if size > hashed_max || frame_at(bytes, generation, place).is_some() {
                return true;
            }
            hashed_max -= size;
        }
        place += 1;
    }
    false
}

/// The size of the writes where bytes look like a frame, whatever the checksum says.
fn frame_like_at(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_SIZE>()?;
    let (size, _) = head.split_first_chunk::<4>()?;
    let mut rest = rest.get(..u32::from_be_bytes(*size) as usize)?;
    let size = rest.len();
    while let Some((table, key, _, more)) = next_write(rest) {
        if key.is_empty() && table != ENDED {
            return None;
        }
        rest = more;
    }
    (size > 0 && rest.is_empty()).then_some(size)
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
        replay(directory, from, None, &mut |(
            generation,
            table,
            key,
            value,
        )| {
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

    /// Leaves zeros from a place on.
    fn cut(directory: &Path, generation: u64, size: u64) {
        let path = path_of(directory, generation);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let taken = file.metadata().unwrap().len();
        file.set_len(size).unwrap();
        file.set_len(taken).unwrap();
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
        assert_eq!(read(&scratch.0, 7).unwrap(), expected);
        for size in (whole..log.size()).rev() {
            cut(&scratch.0, 7, size);
            assert_eq!(read(&scratch.0, 7).unwrap(), expected[..2], "{size}");
        }
    }

    /// A disk that is full leaves files that are shorter than they were to be.
    #[test]
    fn a_new_file_has_all_its_space_whatever_lay_there_before() {
        let scratch = Scratch::new();
        let spare = File::create(scratch.0.join(SPARE)).unwrap();
        spare.set_len(RESERVE_SIZE / 4).unwrap();
        let log = Log::create(&scratch.0, 1).unwrap();
        assert_eq!(log.file.metadata().unwrap().len(), RESERVE_SIZE);
        let sealed = Some((1, 0));
        assert_eq!(
            replay(&scratch.0, 1, sealed, &mut |_| Ok(())),
            Ok(Some(1)),
            "nothing was lost of it"
        );
    }

    #[test]
    fn what_openings_began_that_came_no_further_is_begun_again() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", None);
        Log::create(&scratch.0, 2).unwrap();
        Log::create(&scratch.0, 3).unwrap();
        assert_eq!(replay(&scratch.0, 1, None, &mut |_| Ok(())), Ok(Some(1)));
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
        assert_eq!(read(&scratch.0, 2).unwrap(), expected);
    }

    #[test]
    fn what_is_taken_back_is_not_replayed() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", None);
        let before = log.size();
        append(&mut log, b"b", Some(&[7; 100]));
        log.take_back(before).unwrap();
        assert_eq!(read(&scratch.0, 1).unwrap(), [(1, b"a".to_vec(), None)]);
        append(&mut log, b"c", None);
        let keys = read(&scratch.0, 1)
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
        assert_eq!(read(&scratch.0, 1).unwrap().len(), 1);
        append(&mut log, b"b", Some(b"2"));
        let told = read(&scratch.0, 1).unwrap_err();
        assert!(told.contains("lacks commits"), "{told}");
        std::fs::remove_file(path_of(&scratch.0, 1)).unwrap();
        let found = read(&scratch.0, 2).unwrap();
        assert_eq!(found.len(), 1, "what is older is not missed");
        for from in [0, 1] {
            let told = read(&scratch.0, from).unwrap_err();
            assert!(told.contains("missing"), "{told}");
        }
    }

    #[test]
    fn a_file_that_another_says_to_come_is_missed() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", None);
        log.rotate().unwrap();
        std::fs::remove_file(path_of(&scratch.0, 2)).unwrap();
        let told = read(&scratch.0, 1).unwrap_err();
        assert!(told.contains("0002 is missing"), "{told}");
    }

    #[test]
    fn a_flipped_bit_before_whole_frames_is_damage_wherever_it_is() {
        let scratch = Scratch::new();
        // What the file held before is none of its frames.
        let mut log = Log::create(&scratch.0, 1).unwrap();
        for number in 0..20_u8 {
            append(&mut log, &[number; 3], Some(&[number; 90]));
        }
        log.rotate().unwrap();
        log.remove_older().unwrap();
        log.rotate().unwrap();
        log.remove_older().unwrap();
        for number in 0..5_u8 {
            append(&mut log, &[number; 3], Some(&[0; 40]));
        }
        let last = log.size();
        append(&mut log, b"last", Some(b"1"));
        let path = path_of(&scratch.0, 3);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(read(&scratch.0, 3).unwrap().len(), 6);
        for place in 0..log.size() as usize {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            std::fs::write(&path, bytes).unwrap();
            let found = read(&scratch.0, 3);
            match found {
                Ok(found) => {
                    assert!(place >= last as usize, "{place}");
                    assert_eq!(found.len(), 5, "{place}: the last may be torn");
                }
                Err(told) => assert!(told.contains("damaged at byte"), "{told}"),
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_damage() {
        let scratch = Scratch::new();
        let mut log = Log::create(&scratch.0, 1).unwrap();
        append(&mut log, b"a", None);
        let first = log.size();
        append(&mut log, b"b", None);
        let file = OpenOptions::new()
            .write(true)
            .open(path_of(&scratch.0, 1))
            .unwrap();
        file.set_len(log.size() - 1).unwrap();
        assert!(read(&scratch.0, 1).unwrap_err().contains("damaged"));
        // Where it is cut between two frames, or before all, the seal knows better.
        cut(&scratch.0, 1, first);
        file.set_len(RESERVE_SIZE).unwrap();
        let replayed = |place| replay(&scratch.0, 1, Some((1, place)), &mut |_| Ok(()));
        assert_eq!(replayed(first), Ok(Some(1)));
        let told = replayed(log.size()).unwrap_err();
        assert!(told.contains(&format!("damaged at byte {first}")), "{told}");
        file.set_len(0).unwrap();
        assert_eq!(read(&scratch.0, 1).unwrap(), []);
        assert!(replayed(0).unwrap_err().contains("damaged at byte 0"));
    }

    #[test]
    fn looking_for_a_frame_behind_a_torn_one_has_an_end() {
        // Each looks like a frame with one write, whose value is all that follow.
        let (count, unit) = (20_000, HEAD_SIZE + 10);
        let mut bytes = vec![0; HEAD_SIZE];
        for left in (0..count).rev() {
            let value_size = (left * unit) as u32;
            bytes.extend((value_size + 10).to_be_bytes());
            bytes.extend([7; 8]);
            bytes.extend([1, 0, 0, 0, 1]);
            bytes.extend(value_size.to_be_bytes());
            bytes.push(b'k');
        }
        assert!(frame_like_at(&bytes[HEAD_SIZE..]).is_some());
        assert!(is_followed(&bytes, 1, 0), "nobody can tell");
        let tail = bytes.len() - 2 * unit;
        assert!(!is_followed(&bytes, 1, tail), "none of these is one");
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
