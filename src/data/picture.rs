//! Decoding, resizing and cropping of 8-bit images.

use super::config::{Color, Step};
use image::{ImageDecoder, ImageReader, Limits};
use serde::Deserialize;
use std::io::Cursor;
use std::path::Path;

/// Most bytes an image file may have, and most its pixels may take.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Resampling filter. Results equal those of `resize` of Pillow 12, code for code: when shrinking, the filter is widened
/// by the ratio (antialiasing); each of the two passes, along the rows first, rounds to 8 bits. (Pillow 13 goes along
/// the columns first where that saves work, which moves some codes by one.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The pixel at the centre, without antialiasing.
    Nearest,
    /// Triangle.
    #[default]
    Bilinear,
    /// Cubic convolution with a = -0.5.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            _ => 0.0,
        }
    }
}

/// Interleaved 8-bit samples `[h, w, c]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Samples, h * w * c.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Decodes a JPEG or PNG file, recognised by its content. Alpha is dropped, 16 bits are rounded to 8, and the
    /// orientation a camera may have noted is not applied.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub fn open(path: &Path, color: Color) -> Result<Picture, String> {
        let size = std::fs::metadata(path).map_err(|e| format!("cannot open: {e}"))?.len();
        if size > MAX_IMAGE_BYTES {
            return Err(format!("{size} bytes; an image file may have {MAX_IMAGE_BYTES}"));
        }
        let bytes = std::fs::read(path).map_err(|e| format!("cannot read: {e}"))?;
        Picture::decode(&bytes, color)
    }

    /// Decodes the bytes of a JPEG or PNG file.
    ///
    /// # Errors
    /// Why they cannot be decoded.
    pub fn decode(bytes: &[u8], color: Color) -> Result<Picture, String> {
        if bytes.is_empty() {
            return Err("the file is empty".into());
        }
        if is_truncated_jpeg(bytes) {
            return Err("cut short: JPEG data without its end".into());
        }
        let mut reader =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
        if reader.format().is_none() {
            return Err("neither JPEG nor PNG".into());
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_IMAGE_BYTES);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
        if decoder.total_bytes() > MAX_IMAGE_BYTES {
            let (w, h) = decoder.dimensions();
            return Err(format!("{w}x{h} pixels take more than {MAX_IMAGE_BYTES} bytes"));
        }
        let image = image::DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
        let (w, h) = (image.width() as usize, image.height() as usize);
        let c = color.channels();
        let pixels = match (color, image) {
            (Color::Gray, image::DynamicImage::ImageLuma8(gray)) => gray.into_raw(),
            (Color::Gray, other) => other.into_rgb8().as_chunks::<3>().0.iter().map(luma).collect(),
            (Color::Rgb, other) => other.into_rgb8().into_raw(),
            (Color::Bgr, other) => {
                let mut rgb = other.into_rgb8().into_raw();
                rgb.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2));
                rgb
            }
        };
        Ok(Picture { h, w, c, pixels })
    }

    /// Applies a geometric step; the others leave the picture as it is.
    ///
    /// # Errors
    /// A crop that is larger than the picture.
    pub fn apply(self, step: &Step) -> Result<Picture, String> {
        match *step {
            Step::Resize([h, w], filter) => self.resize(h, w, filter),
            Step::ResizeShorter(n, filter) => {
                let (h, w) = if self.h <= self.w {
                    (n, n * self.w / self.h.max(1))
                } else {
                    (n * self.h / self.w.max(1), n)
                };
                self.resize(h, w, filter)
            }
            Step::CenterCrop([h, w]) => {
                let top = half_to_even(self.h.saturating_sub(h));
                let left = half_to_even(self.w.saturating_sub(w));
                self.crop(top, left, h, w)
            }
            Step::Crop([top, left, h, w]) => self.crop(top, left, h, w),
            Step::Mean(_) | Step::Std(_) | Step::Scale(_) | Step::Dtype(_) => Ok(self),
        }
    }

    fn crop(self, top: usize, left: usize, h: usize, w: usize) -> Result<Picture, String> {
        let fits = |at: usize, n: usize, of: usize| at.checked_add(n).is_some_and(|end| end <= of);
        if !fits(top, h, self.h) || !fits(left, w, self.w) {
            return Err(format!(
                "a crop of {h}x{w} at ({top}, {left}) from {}x{} (height x width)",
                self.h, self.w
            ));
        }
        if (h, w) == (self.h, self.w) {
            return Ok(self);
        }
        let mut pixels = Vec::with_capacity(h * w * self.c);
        for y in top..top + h {
            let start = (y * self.w + left) * self.c;
            pixels.extend_from_slice(&self.pixels[start..start + w * self.c]);
        }
        Ok(Picture { h, w, c: self.c, pixels })
    }

    fn resize(self, h: usize, w: usize, filter: Filter) -> Result<Picture, String> {
        let bytes = (h as u64).saturating_mul(w as u64).saturating_mul(self.c as u64);
        if self.h == 0 || self.w == 0 || bytes > MAX_IMAGE_BYTES {
            return Err(format!("cannot resize {}x{} to {h}x{w} (height x width)", self.h, self.w));
        }
        let mut out = self;
        if filter == Filter::Nearest {
            return Ok(out.nearest(h, w));
        }
        if out.w != w {
            let taps = Taps::new(out.w, w, filter);
            let mut pixels = vec![0; out.h * w * out.c];
            for (row, to) in out.pixels.chunks_exact(out.w * out.c).zip(pixels.chunks_exact_mut(w * out.c)) {
                for (x, to) in to.chunks_exact_mut(out.c).enumerate() {
                    let (start, weights) = taps.of(x);
                    for (k, to) in to.iter_mut().enumerate() {
                        let from = row[start * out.c + k..].iter().step_by(out.c);
                        *to = weigh(from.zip(weights));
                    }
                }
            }
            out = Picture { w, pixels, ..out };
        }
        if out.h != h {
            let taps = Taps::new(out.h, h, filter);
            let row = out.w * out.c;
            let mut pixels = vec![0; h * row];
            let mut sums = vec![0i32; row];
            for (y, to) in pixels.chunks_exact_mut(row).enumerate() {
                let (start, weights) = taps.of(y);
                sums.fill(HALF);
                for (from, weight) in out.pixels[start * row..].chunks_exact(row).zip(weights) {
                    for (sum, v) in sums.iter_mut().zip(from) {
                        *sum += i32::from(*v) * weight;
                    }
                }
                for (to, sum) in to.iter_mut().zip(&sums) {
                    *to = code(*sum);
                }
            }
            out = Picture { h, pixels, ..out };
        }
        Ok(out)
    }

    fn nearest(&self, h: usize, w: usize) -> Picture {
        let (ys, xs) = (nearest(self.h, h), nearest(self.w, w));
        let mut pixels = Vec::with_capacity(h * w * self.c);
        for y in ys {
            for x in &xs {
                let at = (y * self.w + x) * self.c;
                pixels.extend_from_slice(&self.pixels[at..at + self.c]);
            }
        }
        Picture { h, w, c: self.c, pixels }
    }
}

/// The input index under the centre of each output index. The centres are summed up, as Pillow does: where one lies
/// between two pixels, the rounding of that sum decides.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the side")]
fn nearest(from: usize, to: usize) -> Vec<usize> {
    let ratio = from as f64 / to as f64;
    let mut centre = ratio * 0.5;
    (0..to)
        .map(|_| {
            let at = centre as usize;
            centre += ratio;
            at.min(from - 1)
        })
        .collect()
}

fn luma(p: &[u8; 3]) -> u8 {
    let [r, g, b] = p.map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

/// Half of n; between two integers, the even one.
fn half_to_even(n: usize) -> usize {
    let half = n / 2;
    half + usize::from(n % 2 == 1 && half % 2 == 1)
}

/// JPEG data whose last scan has no end. Within a scan every FF byte is followed by 00 or a restart marker, so that
/// neither marker can appear there by chance.
fn is_truncated_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xff, marker]);
    bytes.starts_with(&[0xff, 0xd8]) && last(0xd9) < last(0xda)
}

/// Fraction bits of the fixed-point weights.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

/// For each output index the first input index and the weights from there.
struct Taps {
    starts: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions lie between 0 and the side, which is below 2^16; weights below 2^23"
    )]
    fn new(from: usize, to: usize, filter: Filter) -> Taps {
        let ratio = from as f64 / to as f64;
        let stretch = ratio.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Taps { starts: Vec::with_capacity(to + 1), weights: Vec::new() };
        let mut raw = Vec::new();
        for x in 0..to {
            let centre = (x as f64 + 0.5) * ratio;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            raw.clear();
            raw.extend((first..end).map(|i| filter.at((i as f64 - centre + 0.5) * (1.0 / stretch))));
            let sum: f64 = raw.iter().sum();
            taps.starts.push((first, taps.weights.len()));
            taps.weights.extend(raw.iter().map(|w| {
                let w = w / sum * f64::from(1 << BITS);
                (w + 0.5f64.copysign(w)) as i32
            }));
        }
        taps.starts.push((from, taps.weights.len()));
        taps
    }

    fn of(&self, x: usize) -> (usize, &[i32]) {
        let (first, at) = self.starts[x];
        (first, &self.weights[at..self.starts[x + 1].1])
    }
}

fn weigh<'a>(pairs: impl Iterator<Item = (&'a u8, &'a i32)>) -> u8 {
    code(pairs.fold(HALF, |sum, (v, w)| sum + i32::from(*v) * w))
}

fn code(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(h: usize, w: usize, c: usize) -> Picture {
        let pixels = (0..h * w * c).map(|i| ((i * 7919 + i * i * 31) % 256) as u8).collect();
        Picture { h, w, c, pixels }
    }

    #[test]
    fn a_centre_crop_takes_the_even_half() {
        assert_eq!([0, 1, 2, 3, 5, 29].map(half_to_even), [0, 0, 1, 2, 2, 14]);
    }

    #[test]
    fn a_crop_takes_its_rows_and_columns() {
        let p = Picture { h: 3, w: 3, c: 1, pixels: (0..9).collect() };
        let cropped = p.clone().apply(&Step::Crop([1, 0, 2, 2])).expect("fits");
        assert_eq!(cropped.pixels, [3, 4, 6, 7]);
        let e = p.apply(&Step::CenterCrop([4, 2])).expect_err("too large");
        assert!(e.contains("4x2") && e.contains("3x3"), "{e}");
    }

    #[test]
    fn resizing_keeps_constants_and_identity() {
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
            let flat = Picture { h: 7, w: 5, c: 3, pixels: vec![201; 105] };
            for size in [[3, 4], [14, 9], [1, 1], [7, 2]] {
                let out = flat.clone().apply(&Step::Resize(size, filter)).expect("resizes");
                assert!(out.pixels.iter().all(|v| *v == 201), "{filter:?} {size:?}");
            }
            let p = ramp(6, 5, 3);
            assert_eq!(p.clone().apply(&Step::Resize([6, 5], filter)), Ok(p));
        }
    }

    #[test]
    fn resizing_gives_the_codes_of_pillow_12() {
        let nearest =
            [0, 0, 14, 14, 90, 228, 228, 56, 56, 54, 54, 114, 236, 236, 240, 240, 222, 222, 10, 116, 116];
        let bilinear = [
            74, 77, 84, 121, 159, 173, 182, 106, 105, 104, 134, 165, 169, 172, 207, 202, 194, 143, 94, 94, 94,
        ];
        let bicubic = [
            72, 72, 80, 118, 160, 179, 187, 107, 103, 102, 139, 176, 174, 170, 209, 208, 197, 140, 87, 88, 93,
        ];
        for (filter, grown, shrunk) in [
            (Filter::Nearest, nearest, [172, 246, 120, 164, 206, 64]),
            (Filter::Bilinear, bilinear, [92, 131, 174, 161, 139, 123]),
            (Filter::Bicubic, bicubic, [80, 128, 184, 170, 140, 118]),
        ] {
            let to = |size| ramp(5, 4, 1).apply(&Step::Resize(size, filter)).expect("resizes").pixels;
            assert_eq!(to([3, 7]), grown, "{filter:?}");
            assert_eq!(to([2, 3]), shrunk, "{filter:?}");
        }
    }

    #[test]
    fn the_shorter_side_gets_the_length() {
        for ((h, w), want) in [((10, 20), (5, 10)), ((21, 10), (10, 5)), ((8, 8), (5, 5))] {
            let out = ramp(h, w, 1).apply(&Step::ResizeShorter(5, Filter::Bilinear)).expect("resizes");
            assert_eq!((out.h, out.w), want);
        }
    }

    #[test]
    fn a_jpeg_is_truncated_when_its_last_scan_has_no_end() {
        let whole = [0xff, 0xd8, 0xff, 0xda, 1, 2, 0xff, 0xd9];
        assert!(!is_truncated_jpeg(&whole));
        assert!(is_truncated_jpeg(&whole[..7]));
        assert!(is_truncated_jpeg(&[0xff, 0xd8, 0xff, 0xda, 1, 0xff, 0xd9, 0xff, 0xda, 1]));
    }
}
