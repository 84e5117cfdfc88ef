//! `[upload]`: whether users may put files on the server, how large and how many, and for how long.

use super::complaint::{ConfigError, Source};
use super::value::Number;
use crate::transport::http::Site;
use crate::uploads::{LABEL_SIZE, UploadConfig};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xmpp::settings::Durability;

/// Where files are kept unless configured, below the data directory.
const DIRECTORY_DEFAULT: &str = "uploads";
/// Bytes of one file unless configured: some minutes of video.
const FILE_SIZE_DEFAULT: u64 = 100 << 20;
/// Bytes of all files of an account unless configured.
const QUOTA_DEFAULT: u64 = 1 << 30;
/// Bytes that it may put in a day unless configured.
const DAILY_DEFAULT: u64 = 512 << 20;
/// Days that files are kept unless configured.
const EXPIRE_DAYS_DEFAULT: u64 = 31;
/// The largest number of bytes.
const SIZE_MAX: u64 = 1 << 50;
/// The longest time: a century.
const DAYS_MAX: u64 = 36_500;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [upload]")]
pub(super) struct UploadFile {
    enabled: Option<bool>,
    directory: Option<PathBuf>,
    max_file_size: Option<Number<1, SIZE_MAX>>,
    quota: Option<Number<1, SIZE_MAX>>,
    daily_quota: Option<Number<1, SIZE_MAX>>,
    expire_days: Option<Number<0, DAYS_MAX>>,
}

/// What of the rest of the file it depends on.
pub(super) struct Around<'a> {
    pub(super) data: &'a Path,
    pub(super) site: &'a Site,
    /// Whether anything listens for the web.
    pub(super) is_served: bool,
    pub(super) durability: Durability,
}

impl UploadFile {
    /// What is kept, if anything is; `at` finds what a path in the file means.
    pub(super) fn check(
        self,
        around: &Around<'_>,
        at: impl Fn(PathBuf) -> PathBuf,
        source: &Source<'_>,
    ) -> Result<Option<UploadConfig>, ConfigError> {
        if !self.enabled.unwrap_or(false) {
            return Ok(None);
        }
        let refuse = |key: &str, what: String, remedy: &str| {
            Err(source.refuse(Some("upload"), key, what, remedy))
        };
        if !around.is_served {
            let what = "upload.enabled is true, but nothing listens for the web".to_owned();
            return refuse(
                "enabled",
                what,
                "give listen.https or listen.http an address",
            );
        }
        let Some(authority) = &around.site.authority else {
            let what = "upload.enabled is true, but it is not known where clients find files";
            let remedy = "set web.url, or give listen.https an address";
            return refuse("enabled", what.to_owned(), remedy);
        };
        let bytes = |number: Option<Number<1, SIZE_MAX>>, default| {
            number.map_or(default, |Number(bytes)| bytes)
        };
        let size_max = bytes(self.max_file_size, FILE_SIZE_DEFAULT);
        let taken = size_max + LABEL_SIZE as u64;
        let quota = bytes(self.quota, QUOTA_DEFAULT.max(taken));
        let daily = bytes(self.daily_quota, DAILY_DEFAULT.max(taken));
        for (key, number) in [("quota", quota), ("daily_quota", daily)] {
            if number < taken {
                let what = format!(
                    "upload.{key} ({number}) has no room for one file of upload.max_file_size \
                     ({size_max}) and {LABEL_SIZE} bytes more that each takes"
                );
                return refuse(key, what, "raise it, or lower upload.max_file_size");
            }
        }
        let days = self
            .expire_days
            .map_or(EXPIRE_DAYS_DEFAULT, |Number(days)| days);
        let directory = self.directory.map(at);
        Ok(Some(UploadConfig {
            directory: directory.unwrap_or_else(|| around.data.join(DIRECTORY_DEFAULT)),
            url: format!("https://{authority}").into(),
            size_max,
            quota,
            daily,
            lifetime: (days > 0).then(|| Duration::from_secs(days * 86_400)),
            durable: around.durability != Durability::Memory,
        }))
    }
}
