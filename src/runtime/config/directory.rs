//! Directories that the server will use: what can be known about them before they are made.

use rustix::fs::{Access, access, statfs};
use std::fs;
use std::io;
use std::path::Path;

/// What `/proc` and `/sys` are (statfs(2)). Root may write there, and still nothing can be made.
const KERNEL_VIEWS: [i64; 2] = [0x9fa0, 0x6265_6572];

/// Says what is wrong with `directory`, which may be made yet: then the nearest one that exists
/// counts.
///
/// # Errors
/// Why this user cannot keep files there, in words to follow `but`.
pub(super) fn check(directory: &Path) -> Result<(), String> {
    for path in directory.ancestors() {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let shown = path.display();
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return Err(format!("{shown} is no directory")),
            Ok(_) if shows_kernel(path) => {
                return Err(format!("{shown} is the kernel's, which keeps no files"));
            }
            Ok(_) => {
                let usable = access(path, Access::WRITE_OK | Access::EXEC_OK);
                return usable.map_err(|error| {
                    format!("{shown} cannot be written ({})", io::Error::from(error))
                });
            }
            // A link whose target is missing can be neither used nor made.
            Err(_) if path.is_symlink() => return Err(format!("{shown} is a link to nothing")),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(format!("{shown} cannot be read ({error})")),
        }
    }
    Ok(())
}

fn shows_kernel(path: &Path) -> bool {
    let type_ = statfs(path).map(|found| found.f_type);
    type_.is_ok_and(|type_| KERNEL_VIEWS.contains(&type_))
}

/// Below a file nothing exists either: the file itself is met further up.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
