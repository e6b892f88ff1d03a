//! Data sets of the example models. Without `../shared` (or what `SAMEBIT_SHARED` names) the tests are reported as ignored.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{DataError, Dataset, Loader, LoaderOptions};
use samebit::tensor::{DType, Dim, TensorType};
use std::path::{Path, PathBuf};
use support::trial;

fn main() {
    let absent = support::shared("data").is_none();
    let trials = vec![
        trial("prepared_frames_equal_the_golden_inputs", absent, prepared_frames_equal_the_golden_inputs),
        trial("every_shared_image_is_read", absent, every_shared_image_is_read),
        trial(
            "the_example_data_sets_open_and_fit_their_models",
            absent,
            the_example_data_sets_open_and_fit_their_models,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn shared() -> PathBuf {
    support::shared("data").expect("the tests that use it are ignored without it")
}

type Graph = Vec<(String, TensorType)>;

fn input(name: &str, shape: &[usize]) -> (String, TensorType) {
    let dims = std::iter::once(Dim::Batch(1)).chain(shape.iter().map(|d| Dim::Fixed(*d)));
    (name.into(), TensorType::new(DType::F32, dims))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("has a folder")).expect("makes folders");
    std::fs::write(&path, bytes).expect("writes");
    path
}

fn loader(set: &Dataset, graph: &Graph, batch: usize, threads: usize) -> Result<Loader, DataError> {
    Loader::new(set.inputs_for(graph)?, LoaderOptions { batch, threads, ahead: 2 })
}

fn prepared_frames_equal_the_golden_inputs() {
    let shared = shared();
    let toml = |body: &str| {
        let dir = folder();
        let path = write(dir.path(), "set.toml", body.replace("$", &shared.display().to_string()));
        Dataset::open(&path).expect("opens")
    };
    let golden = |name: &str| {
        let path = shared.join("golden").join(name);
        samebit::data::Array::open(&path).and_then(|a| a.read()).expect("reads")
    };
    let cifar = "[[input]]\nnpy = \"$/cifar10/calib_x.npy\"\nsource_layout = \"nhwc\"\n";
    for (body, name) in [
        (cifar.to_owned(), "resnet8_cifar10.in.input.npy"),
        (
            format!("{cifar}steps = [{{ mean = [125.3, 123.0, 113.9] }}, {{ std = [63.0, 62.1, 66.7] }}]"),
            "vit_cifar10.in.input.npy",
        ),
        (
            "[[input]]\nnpy = \"$/vww/x.npy\"\nsource_layout = \"nhwc\"\nsteps = [{ std = 255 }]".into(),
            "mobilenetv1_025_vww.in.input.npy",
        ),
    ] {
        let want = golden(name);
        let frames = want.shape()[0];
        let set = toml(&body).limit(frames);
        let graph = vec![input("input", &want.shape()[1..])];
        let got = loader(&set, &graph, frames, 2).expect("starts").next().expect("one").expect("reads");
        assert!(got.inputs[0] == want, "{name} differs");
    }
    // JPEG decoders may differ by a few codes.
    let want = golden("squeezenet11_imagenet.in.data.npy");
    let set = toml(
        "[dataset]\nlabels = { csv = \"$/imagenet1k/labels.csv\", file = \"file\", label = \"label\" }\n\
         where = { split = \"calib\" }\n\
         [[input]]\nname = \"data\"\nimages = \"$/imagenet1k/images\"\ncolor = \"bgr\"\n\
         steps = [{ center_crop = [227, 227] }, { mean = [104, 117, 123] }]",
    );
    assert_eq!(set.len(), 125);
    let batch = loader(&set.limit(1), &vec![input("data", &[3, 227, 227])], 1, 1);
    let got = batch.expect("starts").next().expect("one").expect("reads");
    let diff = got.inputs[0].f32s().iter().zip(want.f32s()).map(|(a, b)| (a - b).abs());
    let (max, sum) = diff.fold((0f32, 0f32), |(max, sum), d| (max.max(d), sum + d));
    let mean = sum / want.len() as f32;
    println!("JPEG codes differ from the golden ones by at most {max}, on average {mean}");
    assert!(max <= 5.0 && mean < 0.2, "max {max}, mean {mean}");
}

fn every_shared_image_is_read() {
    let shared = shared();
    let set = Dataset::open(&shared.join("imagenet1k/images")).expect("opens");
    let start = std::time::Instant::now();
    let mut loader = loader(&set, &vec![input("data", &[3, 256, 256])], 32, 2).expect("starts");
    assert!(loader.by_ref().all(|batch| batch.is_ok()));
    println!("{:.0} images/s on 2 threads", loader.frames() as f64 / start.elapsed().as_secs_f64());
    assert_eq!((loader.frames(), loader.skipped()), (1000, [].as_slice()));
}

fn the_example_data_sets_open_and_fit_their_models() {
    let shared = shared();
    let graph = |model: &str| match model {
        "bev_grid" => vec![input("image", &[3, 64, 96]), input("l2i", &[3, 4])],
        "mobilenetv1_025_vww" => vec![input("input", &[3, 96, 96])],
        "resnet8_cifar10" | "vit_cifar10" => vec![input("input", &[3, 32, 32])],
        "squeezenet11_imagenet" => vec![input("data", &[3, 227, 227])],
        "ultraface_rfb320" | "ultraface_rfb320_pp_opset9" => vec![input("input", &[3, 240, 320])],
        other => panic!("no model {other}"),
    };
    let sizes = [
        ("bev_grid", 300, 64),
        ("mobilenetv1_025_vww", 128, 64),
        ("resnet8_cifar10", 3000, 200),
        ("squeezenet11_imagenet", 1000, 64),
        ("ultraface_rfb320", 90, 30),
        ("ultraface_rfb320_pp_opset9", 90, 30),
        ("vit_cifar10", 3000, 200),
    ];
    let folder = folder();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/datasets");
    let mut files: Vec<_> =
        std::fs::read_dir(&examples).expect("lists").map(|e| e.expect("lists").path()).collect();
    files.sort();
    assert_eq!(files.len(), 2 * sizes.len());
    for file in files {
        let stem = file.file_stem().expect("has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("reads");
        let text = text.replace("../../../shared/data", &shared.display().to_string());
        let set = Dataset::open(&write(folder.path(), "set.toml", text)).expect("opens");
        let model = stem.trim_end_matches(".calib");
        let (_, eval, calib) = sizes.iter().find(|(name, ..)| *name == model).expect("a known model");
        assert_eq!(set.len(), if model == stem { *eval } else { *calib }, "{stem}");
        let batch = loader(&set.limit(2), &graph(model), 2, 1).expect("starts").next().expect("one");
        assert_eq!(batch.expect("reads").frames(), 2, "{stem}");
    }
}
