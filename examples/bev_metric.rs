//! A metric of one's own: average precision of a bird's eye view detector.
//!
//! `cargo run --example bev_metric -- DUMP OBJECTS.csv` scores a dump folder with the outputs `heat` [n,1,28,20] and
//! `reg` [n,3,28,20] against the objects of a csv with the columns frame, x_m, y_m, range_m.

use samebit::data::DataError;
use samebit::data::dump::DumpReader;
use samebit::data::metrics::{Frames, Metric, MetricError};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::Path;

/// Cells of the grid, forward and to the left.
const GRID: (usize, usize) = (28, 20);
/// Metres: side of a cell, and the corner of cell (0, 0).
const CELL: f64 = 2.0;
const CORNER: (f64, f64) = (4.0, -20.0);
/// Scores from which a cell is a detection, and from which its range counts.
const THRESHOLD: f32 = 0.1;
const SURE: f64 = 0.3;

struct Object {
    x: f64,
    y: f64,
    range: f64,
}

struct Detection {
    score: f64,
    frame: usize,
    at: Object,
}

/// All-point average precision, best F1 and mean range error. Best score first, each detection takes the nearest free
/// object of its frame and is right if that is closer than 2 m or 10 % of the object's range, whichever is more.
struct BevAp {
    objects: HashMap<String, Vec<Object>>,
    /// Names of the frames seen.
    frames: Vec<String>,
    detections: Vec<Detection>,
}

impl BevAp {
    fn new(objects: &Path) -> Result<BevAp, Box<dyn Error>> {
        let mut of: HashMap<String, Vec<Object>> = HashMap::new();
        for row in csv::Reader::from_path(objects)?.deserialize() {
            let (frame, x, y, range): (String, f64, f64, f64) = row?;
            of.entry(frame).or_default().push(Object { x, y, range });
        }
        Ok(BevAp { objects: of, frames: Vec::new(), detections: Vec::new() })
    }

    /// Whether each detection, best score first, is right; and the range errors of the sure ones that are.
    fn matches(&self) -> (Vec<bool>, Vec<f64>) {
        let mut order: Vec<&Detection> = self.detections.iter().collect();
        order.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut used = HashSet::new();
        let (mut hits, mut errors) = (Vec::new(), Vec::new());
        for d in order {
            let objects = self.objects.get(&self.frames[d.frame]).map_or(&[][..], Vec::as_slice);
            let away = |o: &Object| (o.x - d.at.x).hypot(o.y - d.at.y);
            let nearest = (0..objects.len())
                .filter(|i| !used.contains(&(d.frame, *i)))
                .min_by(|a, b| away(&objects[*a]).total_cmp(&away(&objects[*b])))
                .filter(|i| away(&objects[*i]) < f64::max(2.0, 0.1 * objects[*i].range));
            if let Some(i) = nearest {
                used.insert((d.frame, i));
                if d.score >= SURE {
                    errors.push((objects[i].range - d.at.range).abs());
                }
            }
            hits.push(nearest.is_some());
        }
        (hits, errors)
    }
}

impl Metric for BevAp {
    fn name(&self) -> &str {
        "bev_ap"
    }

    fn observe(&mut self, frames: &Frames<'_>) -> Result<(), MetricError> {
        let (heat, reg) = (frames.output("heat")?, frames.output("reg")?);
        let (nx, ny) = GRID;
        let cells = nx * ny;
        let sizes = (heat.len(), reg.len()) == (frames.ids.len() * cells, 3 * frames.ids.len() * cells);
        let (Some(heat), Some(reg), true) = (heat.as_f32(), reg.as_f32(), sizes) else {
            return Err(MetricError::Other(format!(
                "heat must be f32 [n,1,{nx},{ny}], reg f32 [n,3,{nx},{ny}]"
            )));
        };
        for (k, id) in frames.ids.iter().enumerate() {
            let (heat, reg) = (&heat[k * cells..][..cells], &reg[3 * k * cells..][..3 * cells]);
            for cell in 0..cells {
                let (i, j, p) = (cell / ny, cell % ny, heat[cell]);
                let mut around = (i.saturating_sub(1)..nx.min(i + 2))
                    .flat_map(|i| (j.saturating_sub(1)..ny.min(j + 2)).map(move |j| heat[i * ny + j]));
                if p > THRESHOLD && around.all(|q| p >= q) {
                    let [dx, dy, range] = [0, 1, 2].map(|c| f64::from(reg[c * cells + cell]));
                    let x = CORNER.0 + (i as f64 + 0.5) * CELL + dx;
                    let y = CORNER.1 + (j as f64 + 0.5) * CELL + dy;
                    let at = Object { x, y, range };
                    self.detections.push(Detection { score: f64::from(p), frame: self.frames.len(), at });
                }
            }
            self.frames.push(id.clone());
        }
        Ok(())
    }

    fn finish(&self) -> Vec<(String, f64)> {
        let truths: usize = self.frames.iter().filter_map(|f| self.objects.get(f)).map(Vec::len).sum();
        let (hits, errors) = self.matches();
        let mut found = 0.0;
        let points: Vec<(f64, f64)> = (1..)
            .zip(&hits)
            .map(|(n, hit)| {
                found += f64::from(u8::from(*hit));
                (found / f64::from(n), found / truths as f64)
            })
            .collect();
        let f1 = points.iter().map(|(p, r)| 2.0 * p * r / f64::max(p + r, 1e-9)).fold(0.0, f64::max);
        let (mut ap, mut best) = (0.0, 0.0);
        for n in (0..points.len()).rev() {
            best = f64::max(best, points[n].0);
            let before = if n == 0 { 0.0 } else { points[n - 1].1 };
            ap += (points[n].1 - before) * best;
        }
        let mae = errors.iter().sum::<f64>() / errors.len() as f64;
        vec![
            ("ap".into(), ap),
            ("f1".into(), f1),
            ("range_mae_m".into(), mae),
            ("objects".into(), truths as f64),
        ]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dump, objects] = args.as_slice() else {
        return Err("usage: bev_metric DUMP OBJECTS.csv".into());
    };
    let dump = DumpReader::open(Path::new(dump))?;
    let samples = dump.samples();
    let mut metric = BevAp::new(Path::new(objects))?;
    for (n, ids) in samples.chunks(64).enumerate() {
        let frames = n * 64..n * 64 + ids.len();
        let read = |name: &str| Ok::<_, DataError>((name.to_owned(), dump.frames(name, frames.clone())?));
        metric.observe(&Frames { outputs: &[read("heat")?, read("reg")?], labels: None, ids })?;
    }
    for (name, value) in metric.finish() {
        println!("{name} {value:.4}");
    }
    Ok(())
}
