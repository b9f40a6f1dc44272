//! Folders of images: JPEG and PNG files, in the order of their paths, as inputs of a network.
//!
//! Files in folders below count too (one folder a class is the usual layout); numbers in names sort as numbers. An image is decoded to
//! 8-bit RGB; transparency is dropped, and the orientation that a camera noted is not applied, as in torchvision.

use std::path::{Path, PathBuf};

use bnkit_engine::catch_panic;
use bnkit_model::{Error, Limits, Result};
use image::ImageReader;

use super::natural;
use super::preprocess::Preprocess;

/// The images of a folder.
#[derive(Debug, Clone)]
pub struct Images {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// What is done to each of them.
    pub preprocess: Preprocess,
}

/// Whether a path is a folder with images in it, and no tensors.
pub fn is_folder_of_images(path: &Path) -> bool {
    path.is_dir()
        && super::files(path).is_ok_and(|tensors| tensors.is_empty())
        && find(path, 0).is_ok_and(|files| !files.is_empty())
}

impl Images {
    /// Lists the images of a folder; none is read yet.
    ///
    /// # Errors
    /// If the folder cannot be listed, or has no images.
    pub fn open(folder: &Path, preprocess: Preprocess) -> Result<Self> {
        let mut files = find(folder, 0)?;
        if files.is_empty() {
            return Err(
                Error::invalid("no .jpg, .jpeg or .png files in this folder").in_file(folder),
            );
        }
        files.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
        Ok(Self { files, preprocess })
    }

    /// Dimensions (without samples) and values of one image.
    ///
    /// # Errors
    /// If it cannot be read or decoded, or is too small; the message names the file.
    pub fn read(&self, index: usize) -> Result<([usize; 3], Vec<f32>)> {
        let path = &self.files[index];
        let unreadable =
            |error| Error::invalid(format!("not a readable image: {error}")).in_file(path);
        let open = || {
            ImageReader::open(path)
                .map_err(|error| Error::io(path, "cannot open", error))?
                .with_guessed_format()
                .map_err(|error| Error::io(path, "cannot read", error))
        };
        // The size first: a file of a few kilobytes can hold a picture of a gigabyte.
        let (width, height) = open()?.into_dimensions().map_err(unreadable)?;
        let most = Limits::get().image_pixels;
        if u64::from(width) * u64::from(height) > most {
            let message = format!(
                "the image is {height}×{width} (height × width): more than {most} pixels are not read"
            );
            return Err(Error::invalid(message).in_file(path));
        }
        let reader = open()?;
        // The decoder of PNG panics on some damaged files.
        let image = catch_panic(|| reader.decode())
            .map_err(|panic| {
                Error::invalid(format!("not a readable image: {panic}")).in_file(path)
            })?
            .map_err(unreadable)?;
        self.preprocess
            .apply(&image.to_rgb8())
            .map_err(|error| error.in_file(path))
    }
}

/// How deep folders are looked into.
const MAX_DEPTH: usize = 16;

fn find(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(folder, "cannot list", error);
    let mut files = vec![];
    for entry in folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // Links to folders are not followed: they may lead back.
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth < MAX_DEPTH {
                files.extend(find(&path, depth + 1)?);
            }
        } else if is_image(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["jpg", "jpeg", "png"].contains(&extension.to_ascii_lowercase().as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    #[test]
    fn images_come_in_the_order_of_their_paths_and_bad_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for (name, grey) in [
            ("a10.png", 3u8),
            ("a9.png", 2),
            ("b/1.png", 4),
            ("A.PNG", 1),
        ] {
            let image = GrayImage::from_pixel(2, 3, Luma([grey]));
            image.save(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("labels.txt"), "1").unwrap();
        assert!(is_folder_of_images(folder.path()));
        let preprocess = Preprocess {
            scale: 1.0,
            ..Preprocess::default()
        };
        let images = Images::open(folder.path(), preprocess).unwrap();
        let first: Vec<f32> = (0..4).map(|at| images.read(at).unwrap().1[0]).collect();
        assert_eq!(first, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(images.read(0).unwrap().0, [3, 3, 2]);
        std::fs::write(folder.path().join("b/1.png"), "no image").unwrap();
        let error = images.read(3).unwrap_err().to_string();
        assert!(
            error.contains("1.png") && error.contains("image"),
            "{error}"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(Images::open(empty.path(), Preprocess::default()).is_err());
    }
}
