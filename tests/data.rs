//! Data sets from files on disk: what users write, and what they get wrong.

use samebit::data::shards::Shard;
use samebit::data::{DataError, Dataset, Loader, LoaderOptions, write_npy};
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::path::{Path, PathBuf};

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

/// A `w` x `h` picture whose red, green and blue are x, y and `blue`.
fn picture(dir: &Path, name: &str, h: u32, w: u32, blue: u8) {
    let image = image::RgbImage::from_fn(w, h, |x, y| image::Rgb([x as u8, y as u8, blue]));
    std::fs::create_dir_all(dir.join(name).parent().expect("has a folder")).expect("makes folders");
    image.save(dir.join(name)).expect("saves");
}

fn loader(set: &Dataset, graph: &Graph, batch: usize, threads: usize) -> Result<Loader, DataError> {
    Loader::new(set.inputs_for(graph)?, LoaderOptions { batch, threads, ahead: 2 })
}

fn ids(set: &Dataset) -> Vec<String> {
    set.ids().map(|id| id.into_owned()).collect()
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn labels(set: &Dataset) -> Vec<i64> {
    let mut all = Vec::new();
    set.each_label(|i, label| {
        assert_eq!((i, set.label(i)?), (all.len(), Some(label)));
        all.push(label);
        Ok::<(), DataError>(())
    })
    .expect("reads");
    all
}

/// All frames of the first input, with the ids.
fn all(set: &Dataset, graph: &Graph) -> (Vec<f32>, Vec<String>) {
    let (mut values, mut ids) = (Vec::new(), Vec::new());
    for batch in loader(set, graph, 3, 2).expect("starts") {
        let batch = batch.expect("reads");
        values.extend_from_slice(batch.inputs[0].as_f32().expect("f32"));
        ids.extend(batch.ids);
    }
    (values, ids)
}

fn error_of(path: &Path, graph: &Graph) -> String {
    let run = || -> Result<(), DataError> {
        loader(&Dataset::open(path)?, graph, 4, 2)?.try_for_each(|batch| batch.map(drop))
    };
    run().expect_err("is refused").to_string()
}

#[test]
fn an_image_folder_is_cropped_reordered_and_normalised() {
    let dir = folder();
    picture(dir.path(), "images/b.png", 6, 8, 40);
    picture(dir.path(), "images/a.png", 8, 6, 50);
    write(dir.path(), "images/notes.md", "no image");
    let toml = write(
        dir.path(),
        "set.toml",
        r#"
        [dataset]
        name = "two"
        [[input]]
        name = "x"
        images = "images"
        color = "bgr"
        steps = [ { center_crop = [2, 3] }, { mean = [1, 2, 3] }, { std = 2 }, { scale = [1, 1, 10] } ]
        "#,
    );
    let set = Dataset::open(&toml).expect("opens");
    assert_eq!((set.name().as_str(), set.len()), ("two", 2));
    let (values, ids) = all(&set, &vec![input("x", &[3, 2, 3])]);
    assert_eq!(ids, ["a.png", "b.png"]);
    // a: 8x6, top 3, left half of 3 to the even 2. Blue, green = y, red = x.
    let a =
        [24.5, 24.5, 24.5, 24.5, 24.5, 24.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, -5.0, 0.0, 5.0, -5.0, 0.0, 5.0];
    assert_eq!(&values[..18], a);
    // b: 6x8, top 2, left half of 5 to the even 2.
    assert_eq!(&values[18..19], [19.5]);
    assert_eq!(&values[24..36], [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, -5.0, 0.0, 5.0, -5.0, 0.0, 5.0]);
}

#[test]
fn a_bare_folder_list_array_and_archive_are_data_sets_too() {
    let dir = folder();
    picture(dir.path(), "i/a.png", 2, 2, 9);
    picture(dir.path(), "i/b.JPG", 2, 2, 9);
    let list = write(dir.path(), "list.txt", "# one\ni/a.png\n\n");
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_f32([5, 3, 2, 2], (0..60).map(|v| v as f32).collect())).expect("writes");
    let npz = dir.path().join("x.npz");
    archive(&npz, &[("x", &std::fs::read(&npy).expect("reads"))]);
    let graph = vec![input("anything", &[3, 2, 2])];
    for (path, ids) in [
        (dir.path().join("i"), vec!["a.png", "b.JPG"]),
        (list, vec!["i/a.png"]),
        (npy, vec!["0", "1", "2", "3", "4"]),
        (npz.clone(), vec!["0", "1", "2", "3", "4"]),
        (PathBuf::from(format!("{}:x", npz.display())), vec!["0", "1", "2", "3", "4"]),
        (dir.path().join("i/a.png"), vec!["a.png"]),
    ] {
        let (values, got) = all(&Dataset::open(&path).expect("opens"), &graph);
        assert_eq!(got, ids, "{}", path.display());
        assert_eq!(values.len(), 12 * ids.len());
    }
}

fn archive(path: &Path, arrays: &[(&str, &[u8])]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).expect("creates"));
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("starts");
        zip.write_all(bytes).expect("writes");
    }
    zip.finish().expect("finishes");
}

#[test]
fn codes_in_nhwc_reach_an_nchw_graph_through_the_tables() {
    let dir = folder();
    write_npy(&dir.path().join("x.npy"), &Tensor::from_u8([1, 1, 2, 3], vec![0, 10, 20, 255, 110, 120]))
        .expect("writes");
    let toml = write(
        dir.path(),
        "set.toml",
        r#"
        [[input]]
        npy = "x.npy"
        source_layout = "nhwc"
        steps = [ { mean = [125.3, 123.0, 113.9] }, { std = [63.0, 62.1, 66.7] } ]
        "#,
    );
    let set = Dataset::open(&toml).expect("opens");
    let graph = vec![input("input", &[3, 1, 2])];
    // numpy: (x.astype(float32) - float32(mean)) / float32(std), bit for bit
    let numpy: [u32; 6] = [0xbffe93ea, 0x4003c23c, 0xbfe8ea27, 0xbe565d2b, 0xbfb432aa, 0x3dbb4c5e];
    let (values, _) = all(&set, &graph);
    assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), numpy);
    let bound = set.inputs_for(&graph).expect("fits");
    let tables = bound.inputs()[0].tables().expect("codes and steps").tables();
    assert_eq!((tables.len(), tables[1][110].to_bits()), (3, numpy[3]));
}

#[test]
fn the_csv_decides_which_files_in_its_order() {
    let dir = folder();
    for (i, name) in ["a.png", "b.png", "c.png", "d.png", "e.png"].iter().enumerate() {
        picture(dir.path(), &format!("images/{name}"), 1, 1, i as u8);
    }
    write(
        dir.path(),
        "labels.csv",
        "file,split,class\nd.png,eval,3\na.png,calib,0\nc.png,eval,2\nb.png,eval,1\n",
    );
    write_npy(&dir.path().join("side.npy"), &Tensor::from_f32([4, 1], vec![0.0, 1.0, 2.0, 3.0]))
        .expect("writes");
    let toml = |extra: &str| {
        write(
            dir.path(),
            "set.toml",
            format!(
                r#"
                [dataset]
                labels = {{ csv = "labels.csv", file = "file", label = "class" }}
                {extra}
                [[input]]
                name = "side"
                npy = "side.npy"
                [[input]]
                name = "image"
                images = "images"
                "#
            ),
        )
    };
    let graph = vec![input("image", &[3, 1, 1]), input("side", &[1])];
    for (extra, ids, labels) in [
        ("", vec!["d.png", "a.png", "c.png", "b.png"], vec![3, 0, 2, 1]),
        ("where = { split = \"eval\" }", vec!["d.png", "c.png", "b.png"], vec![3, 2, 1]),
        ("where = { split = \"eval\", class = 2 }", vec!["c.png"], vec![2]),
        ("start = 1\nevery = 2", vec!["a.png", "b.png"], vec![0, 1]),
        ("start = 1\nlimit = 2", vec!["a.png", "c.png"], vec![0, 2]),
    ] {
        let set = Dataset::open(&toml(extra)).expect("opens");
        assert_eq!((self::ids(&set), self::labels(&set)), (strings(&ids), labels.clone()), "{extra}");
        let batch = loader(&set, &graph, 9, 2).expect("starts").next().expect("one").expect("reads");
        assert_eq!(
            (&batch.ids, batch.labels.as_deref()),
            (&ids.iter().map(ToString::to_string).collect(), Some(labels.as_slice()))
        );
        let blue: Vec<f32> = batch.inputs[0].f32s().chunks(3).map(|p| p[2]).collect();
        let of_file: Vec<f32> = ids.iter().map(|f| f32::from(f.as_bytes()[0] - b'a')).collect();
        assert_eq!(blue, of_file, "{extra}");
        let rows = |f: &f32| {
            ["d", "a", "c", "b"].iter().position(|n| n.as_bytes()[0] - b'a' == *f as u8).expect("a row")
                as f32
        };
        assert_eq!(batch.inputs[1].f32s(), of_file.iter().map(rows).collect::<Vec<_>>(), "{extra}");
    }
    let e = error_of(&toml("where = { split = \"test\" }"), &graph);
    assert!(e.contains("empty"), "{e}");
    let e = error_of(&toml("where = { spilt = \"test\" }"), &graph);
    assert!(e.contains("\"spilt\"") && e.contains("file, split, class"), "{e}");
}

#[test]
fn folders_give_labels_in_sorted_order() {
    let dir = folder();
    for name in ["dog/1.png", "cat/x/2.png", "cat/1.png", "ant/0.png"] {
        picture(dir.path(), &format!("images/{name}"), 1, 1, 0);
    }
    let toml =
        write(dir.path(), "set.toml", "[dataset]\nlabels = \"folders\"\n[[input]]\nimages = \"images\"\n");
    let set = Dataset::open(&toml).expect("opens");
    assert_eq!(ids(&set), ["ant/0.png", "cat/1.png", "cat/x/2.png", "dog/1.png"]);
    assert_eq!(labels(&set), [0, 1, 1, 2]);
    picture(dir.path(), "images/loose.png", 1, 1, 0);
    assert!(Dataset::open(&toml).expect_err("no class").what.contains("loose.png is in none"));
}

#[test]
fn raw_files_are_matched_by_a_glob() {
    let dir = folder();
    write(dir.path(), "f/1.bin", 1.5f32.to_le_bytes().repeat(2));
    write(dir.path(), "f/0.bin", 0.5f32.to_le_bytes().repeat(2));
    write(dir.path(), "f/g/9.bin", [0; 8]);
    write(dir.path(), "f/2.bin", [0; 7]);
    let toml = write(
        dir.path(),
        "set.toml",
        "[[input]]\nraw = { glob = \"f/*.bin\", dtype = \"f32\", shape = [2] }\nsteps = [{ scale = 2 }]\n",
    );
    let set = Dataset::open(&toml).expect("opens");
    let mut loader = loader(&set, &vec![input("x", &[2])], 8, 1).expect("starts");
    let batch = loader.next().expect("one").expect("reads");
    assert_eq!(batch.inputs[0], Tensor::from_f32([2, 2], vec![1.0, 1.0, 3.0, 3.0]));
    assert_eq!(batch.ids, ["0.bin", "1.bin"]);
    assert!(loader.next().is_none());
    assert_eq!(loader.skipped()[0].sample, "2.bin");
    assert_eq!(loader.skipped()[0].reason, "7 bytes; shape [2] takes 8");
}

#[test]
fn frames_that_cannot_be_read_are_skipped_and_named() {
    let dir = folder();
    for name in ["a.jpg", "c.jpg", "e.png", "g.png"] {
        picture(dir.path(), &format!("images/{name}"), 16, 16, 7);
    }
    write(dir.path(), "images/b.jpg", "this is text");
    write(dir.path(), "images/d.png", "");
    let whole = std::fs::read(dir.path().join("images/a.jpg")).expect("reads");
    write(dir.path(), "images/f.jpg", &whole[..whole.len() - 10]);
    picture(dir.path(), "images/h.png", 8, 16, 7);
    let set = Dataset::open(&dir.path().join("images")).expect("opens");
    for threads in [1, 2, 5] {
        let mut loader = loader(&set, &vec![input("x", &[3, 16, 16])], 3, threads).expect("starts");
        let ids: Vec<_> = loader.by_ref().map(|b| b.expect("reads").ids).collect();
        assert_eq!(ids, [vec!["a.jpg", "c.jpg", "e.png"], vec!["g.png"]]);
        assert_eq!(loader.frames(), 4);
        let skips: Vec<_> = loader.skipped().iter().map(|s| (s.sample.as_str(), s.reason.as_str())).collect();
        assert_eq!(
            skips,
            [
                ("b.jpg", "neither JPEG nor PNG"),
                ("d.png", "the file is empty"),
                ("f.jpg", "cut short: JPEG data without its end"),
                ("h.png", "a sample is [8, 16, 3] (channels last), the graph's input takes [3, 16, 16]"),
            ]
        );
    }
}

#[test]
fn a_set_of_which_nothing_can_be_read_is_an_error() {
    let dir = folder();
    let path = write(dir.path(), "a.jpg", "this is text");
    let e = error_of(&path, &vec![input("x", &[3, 2, 2])]);
    assert!(e.contains("only sample") && e.contains("neither JPEG nor PNG"), "{e}");
    write(dir.path(), "b.jpg", "this is text, too");
    let e = error_of(dir.path(), &vec![input("x", &[3, 2, 2])]);
    assert!(e.contains("none of its 2 samples") && e.contains("a.jpg"), "{e}");
}

#[test]
fn a_fixed_batch_is_filled_up() {
    let dir = folder();
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_f32([5, 1], vec![0.0, 1.0, 2.0, 3.0, 4.0])).expect("writes");
    let set = Dataset::open(&npy).expect("opens");
    let graph = vec![("x".to_owned(), TensorType::new(DType::F32, [2usize, 1]))];
    let batches: Vec<_> = loader(&set, &graph, 64, 2).expect("starts").map(|b| b.expect("reads")).collect();
    assert_eq!(batches.len(), 3);
    assert_eq!(batches[2].inputs[0], Tensor::from_f32([2, 1], vec![4.0, 4.0]));
    assert_eq!(batches[2].frames(), 1);
    assert_eq!(batches[2].without_padding(&batches[2].inputs[0]), Tensor::from_f32([1, 1], vec![4.0]));
}

#[test]
fn a_loader_stops_when_dropped_and_works_in_a_pool_of_one_thread() {
    let dir = folder();
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_f32([500, 1], vec![1.0; 500])).expect("writes");
    let set = Dataset::open(&npy).expect("opens");
    let graph = vec![input("x", &[1])];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("builds");
    let sum = pool.install(|| {
        for taken in 0..4 {
            let mut unfinished = loader(&set, &graph, 7, 3).expect("starts");
            assert_eq!(unfinished.by_ref().take(taken).count(), taken);
        }
        let all = loader(&set, &graph, 7, 3).expect("starts");
        all.map(|b| b.expect("reads").inputs[0].f32s().iter().sum::<f32>()).sum::<f32>()
    });
    assert_eq!(sum, 500.0);
}

#[test]
fn shards_and_limits_choose_samples() {
    let dir = folder();
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_f32([7, 1], (0..7).map(|v| v as f32).collect())).expect("writes");
    let set = Dataset::open(&npy).expect("opens");
    assert_eq!(ids(&set.shard(Shard { index: 1, of: 3 })), ["1", "4"]);
    assert_eq!(ids(&set.shard(Shard { index: 1, of: 3 }).limit(1)), ["1"]);
    assert_eq!(ids(&set.skip(2).shard(Shard { index: 1, of: 2 }).skip(1)), ["5"]);
    assert_eq!(all(&set.shard(Shard { index: 2, of: 3 }), &vec![input("x", &[1])]).0, [2.0, 5.0]);
}

#[test]
fn what_does_not_fit_the_graph_is_refused_before_anything_is_read() {
    let dir = folder();
    picture(dir.path(), "images/a.png", 4, 4, 0);
    write_npy(&dir.path().join("x.npy"), &Tensor::from_f32([2, 3], vec![0.0; 6])).expect("writes");
    write_npy(&dir.path().join("i.npy"), &Tensor::from_i32([2, 3], vec![0; 6])).expect("writes");
    let set = |body: &str| Dataset::open(&write(dir.path(), "set.toml", body)).expect("opens");
    let images = "[[input]]\nname = \"x\"\nimages = \"images\"\n";
    let cases: [(String, Graph, &[&str]); 8] = [
        (images.into(), vec![input("y", &[3, 4, 4])], &["\"y\"", "gives x", "takes y"]),
        (
            format!("{images}steps = [{{ resize = [2, 2] }}]"),
            vec![input("x", &[3, 4, 4])],
            &["[2, 2, 3]", "[3, 4, 4]"],
        ),
        (
            format!("{images}steps = [{{ center_crop = [4, 4] }}, {{ mean = [1, 2] }}]"),
            vec![input("x", &[3, 4, 4])],
            &["mean has 2 numbers", "3 channels"],
        ),
        (
            format!("{images}[[input]]\nname = \"z\"\nnpy = \"x.npy\"\ncolor = \"rgb\""),
            vec![],
            &["color is for images"],
        ),
        ("[[input]]\nnpy = \"x.npy\"".into(), vec![input("x", &[4])], &["[3]", "[4]"]),
        (
            "[[input]]\nnpy = \"x.npy\"\nsteps = [{ resize = [1, 1] }]".into(),
            vec![input("x", &[3])],
            &["u8 samples", "f32 [3]"],
        ),
        (
            "[[input]]\nnpy = \"x.npy\"".into(),
            vec![("x".into(), TensorType::new(DType::I32, [Dim::Batch(1), Dim::Fixed(3)]))],
            &["samples are f32", "takes i32", "dtype"],
        ),
        (
            "[[input]]\nnpy = \"i.npy\"\nsteps = [{ dtype = \"u8\" }]".into(),
            vec![input("x", &[3])],
            &["steps give u8", "takes f32"],
        ),
    ];
    for (body, graph, parts) in cases {
        if graph.is_empty() {
            let e = Dataset::open(&write(dir.path(), "set.toml", &body)).expect_err("is refused").to_string();
            assert!(parts.iter().all(|p| e.contains(p)), "{e}");
            continue;
        }
        let e = set(&body).inputs_for(&graph).expect_err("is refused").to_string();
        assert!(parts.iter().all(|p| e.contains(p)), "{body}: {e}");
    }
}

#[test]
fn mistakes_in_the_file_are_named() {
    let dir = folder();
    picture(dir.path(), "images/a.png", 1, 1, 0);
    write_npy(&dir.path().join("x.npy"), &Tensor::from_f32([2, 3], vec![0.0; 6])).expect("writes");
    write_npy(&dir.path().join("y.npy"), &Tensor::from_i32([3], vec![0; 3])).expect("writes");
    write_npy(&dir.path().join("none.npy"), &Tensor::from_f32([0, 3], vec![])).expect("writes");
    write(dir.path(), "bad.csv", "file,label\na.png,cat\n");
    std::fs::create_dir(dir.path().join("empty")).expect("makes a folder");
    let images = "[[input]]\nimages = \"images\"\n";
    for (body, parts) in [
        (format!("{images}colour = \"rgb\""), vec!["line 3", "colour"]),
        (format!("{images}steps = [{{ rezise = [1, 1] }}]"), vec!["line 3", "rezise"]),
        (format!("{images}steps = [{{ resize_shorter = 4, center_crop = [1, 1] }}]"), vec!["more than one step"]),
        (format!("{images}steps = [{{ std = [1, 0, 1] }}]"), vec!["std of 0"]),
        (format!("{images}steps = [{{ mean = 1 }}, {{ resize = [1, 1] }}]"), vec!["come before"]),
        (format!("{images}steps = [{{ resize = [1099511627776, 1] }}]"), vec!["1099511627776"]),
        (format!("{images}color = \"nv12\""), vec!["line 3", "not supported yet"]),
        (format!("{images}npy = \"x.npy\""), vec!["2 sources"]),
        ("[[input]]\ntar = \"x.tar\"".into(), vec!["tar is not supported yet"]),
        ("[[input]]\ncommand = \"x\"".into(), vec!["command is not supported yet"]),
        ("[[input]]\nname = \"x\"".into(), vec!["input x", "0 sources"]),
        ("[dataset]\nname = \"x\"".into(), vec!["input"]),
        ("[[input]]\nnpy = \"none.npy\"".into(), vec!["data set is empty"]),
        ("[[input]]\nnpy = \"gone.npy\"".into(), vec!["gone.npy", "cannot open"]),
        ("[[input]]\nimages = \"gone\"".into(), vec!["gone", "cannot list"]),
        ("[[input]]\nimages = \"empty\"".into(), vec!["no .jpg, .jpeg or .png"]),
        ("[[input]]\nraw = { glob = \"*.bin\", dtype = \"f32\", shape = [1099511627776] }".into(), vec!["1099511627776"]),
        ("[[input]]\nraw = { glob = \"*.bin\", dtype = \"float\", shape = [1] }".into(), vec!["\"float\"", "f64"]),
        ("[[input]]\nraw = { glob = \"*.bin\", dtype = \"f32\", shape = [1] }".into(), vec!["no file matches"]),
        ("[dataset]\nlabels = { npy = \"y.npy\" }\n[[input]]\nnpy = \"x.npy\"".into(), vec!["y.npy", "[3]", "2 samples"]),
        ("[dataset]\nlabels = { npy = \"x.npy\" }\n[[input]]\nnpy = \"y.npy\"".into(), vec!["[2, 3]", "3 samples"]),
        ("[dataset]\nlabels = { csv = \"bad.csv\", file = \"file\", label = \"label\" }\n[[input]]\nimages = \"images\"".into(), vec!["line 2", "\"cat\""]),
        ("[dataset]\nlabels = { csv = \"bad.csv\", file = \"name\" }\n[[input]]\nimages = \"images\"".into(), vec!["no column \"name\"", "file, label"]),
        ("[dataset]\nlabels = { cvs = \"bad.csv\" }\n[[input]]\nimages = \"images\"".into(), vec!["line 2", "\"cvs\""]),
        ("[dataset]\nlabels = \"folder\"\n[[input]]\nimages = \"images\"".into(), vec!["line 2", "\"folder\"", "\"folders\""]),
        ("[dataset]\nwhere = { split = \"eval\" }\n[[input]]\nimages = \"images\"".into(), vec!["where"]),
        ("[dataset]\nevery = 0\n[[input]]\nimages = \"images\"".into(), vec!["every = 0"]),
        ("[[input]]\nname = \"a\"\nnpy = \"x.npy\"\n[[input]]\nname = \"b\"\nnpy = \"y.npy\"".into(), vec!["x.npy has 2", "y.npy has 3"]),
        ("[[input]]\nname = \"a\"\nnpy = \"x.npy\"\n[[input]]\nname = \"a\"\nnpy = \"x.npy\"".into(), vec!["two inputs are called a"]),
    ] {
        let e = Dataset::open(&write(dir.path(), "set.toml", &body)).expect_err(&body).to_string();
        assert!(parts.iter().all(|p| e.contains(p)), "{body}\n{e}");
    }
    for name in ["gone.toml", "gone.npy", "gone", "gone.png"] {
        assert!(Dataset::open(&dir.path().join(name)).is_err(), "{name}");
    }
}

#[test]
fn an_archive_unpacks_no_more_than_its_shape_takes() {
    let dir = folder();
    let npz = dir.path().join("x.npz");
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])).expect("writes");
    let array = std::fs::read(&npy).expect("reads");
    let mut bomb = array.clone();
    bomb.resize(64 << 20, 0);
    archive(&npz, &[("x", &bomb)]);
    let e = Dataset::open(&npz).expect_err("too long").to_string();
    assert!(e.contains("67108864") && e.contains("144 bytes"), "{e}");
    // A shape that fits what is declared only if nobody multiplies it.
    let text = String::from_utf8_lossy(&array[10..128]).replace("(2, 2)", "(2, 9000000000)");
    let mut lie = array[..10].to_vec();
    lie.extend(&text.as_bytes()[..117]);
    lie.push(b'\n');
    archive(&npz, &[("x", &lie)]);
    let e = Dataset::open(&npz).expect_err("too short").to_string();
    assert!(e.contains("72000000128"), "{e}");
    archive(&npz, &[("a", &array), ("b", &array)]);
    let e =
        Dataset::open(&PathBuf::from(format!("{}:c", npz.display()))).expect_err("no such array").to_string();
    assert!(e.contains("no array \"c\"") && e.contains("a, b"), "{e}");
    let mut bytes = std::fs::read(&npz).expect("reads");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&npz, bytes).expect("writes");
    assert!(Dataset::open(&npz).expect_err("truncated").what.contains("not an npz archive"));
}

#[test]
fn the_archive_size_in_the_directory_may_lie() {
    let dir = folder();
    let npz = dir.path().join("x.npz");
    let npy = dir.path().join("x.npy");
    write_npy(&npy, &Tensor::from_u8([1000], vec![0; 1000])).expect("writes");
    let mut bomb = std::fs::read(&npy).expect("reads");
    let honest = u32::try_from(bomb.len()).expect("small");
    bomb.resize(8 << 20, 0);
    archive(&npz, &[("x", &bomb)]);
    let mut bytes = std::fs::read(&npz).expect("reads");
    let declared = (8u32 << 20).to_le_bytes();
    let places: Vec<_> = (0..bytes.len() - 4).filter(|i| bytes[*i..*i + 4] == declared).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&honest.to_le_bytes());
    }
    std::fs::write(&npz, bytes).expect("writes");
    let set = Dataset::open(&npz).expect("the header fits");
    let graph = vec![input("x", &[])];
    assert_eq!(all(&set.limit(999), &graph).0.len(), 999);
    let e = error_of(&npz, &graph);
    assert!(e.contains("x.npz") && e.contains("more bytes"), "{e}");
}

#[test]
fn a_deflated_array_is_unpacked_as_far_as_its_rows_are_wanted() {
    let dir = folder();
    let (npz, npy) = (dir.path().join("x.npz"), dir.path().join("x.npy"));
    // 64 MB whose end is damaged: rows before it are read all the same.
    let rows = 1 << 14;
    let values: Vec<f32> =
        (0..rows * 1024).map(|i| (i / 1024) as f32 + (i % 3 + i % 7) as f32 / 16.0).collect();
    write_npy(&npy, &Tensor::from_f32([rows, 1024], values.clone())).expect("writes");
    archive(&npz, &[("x", &std::fs::read(&npy).expect("reads"))]);
    let mut bytes = std::fs::read(&npz).expect("reads");
    let at = bytes.len() * 3 / 4;
    bytes[at..at + 64].fill(0xff);
    std::fs::write(&npz, &bytes).expect("writes");
    let array = samebit::data::Array::open_npz(&npz, "x").expect("opens");
    // In any order, and more than once.
    for i in [5000, 3, 4999, 3] {
        let row = array.read_rows(i..i + 1).expect("reads");
        assert_eq!(row.f32s(), &values[i * 1024..(i + 1) * 1024], "row {i}");
    }
    let e = array.read_rows(rows - 1..rows).expect_err("damaged").to_string();
    assert!(e.contains("x.npz") && (e.contains("cannot unpack") || e.contains("less than")), "{e}");
    assert!(array.read_rows(3..4).is_ok());
}

#[test]
fn a_damaged_archive_is_an_error_and_no_skipped_row() {
    let dir = folder();
    let (npz, npy) = (dir.path().join("x.npz"), dir.path().join("x.npy"));
    write_npy(&npy, &Tensor::from_f32([50, 2], (0..100).map(|v| v as f32).collect())).expect("writes");
    archive(&npz, &[("x", &std::fs::read(&npy).expect("reads"))]);
    let mut bytes = std::fs::read(&npz).expect("reads");
    // The checksum in the directory at the end, 16 bytes behind its signature.
    let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a directory") + 16;
    bytes[at] ^= 1;
    std::fs::write(&npz, bytes).expect("writes");
    let e = error_of(&npz, &vec![input("x", &[2])]);
    assert!(e.contains("x.npz") && e.contains("checksum is wrong"), "{e}");
}

#[test]
fn labels_of_an_array_follow_the_rows() {
    let dir = folder();
    write_npy(&dir.path().join("x.npy"), &Tensor::from_f32([100_000, 1], vec![0.0; 100_000]))
        .expect("writes");
    let y = Tensor::from_i32([100_000], (0..100_000).map(|v| v * 3).collect());
    write_npy(&dir.path().join("y.npy"), &y).expect("writes");
    let toml = "[dataset]\nlabels = { npy = \"y.npy\" }\nstart = 5\nevery = 2\n[[input]]\nnpy = \"x.npy\"";
    let set = Dataset::open(&write(dir.path(), "set.toml", toml)).expect("opens");
    let want = |rows: &mut dyn Iterator<Item = i64>| rows.map(|r| r * 3).collect::<Vec<_>>();
    assert_eq!(labels(&set), want(&mut (5..100_000).step_by(2)));
    assert_eq!(
        labels(&set.shard(Shard { index: 1, of: 3 }).limit(4)),
        want(&mut [7, 13, 19, 25].into_iter())
    );
    assert_eq!(labels(&set.select([9, 1])), want(&mut [23, 7].into_iter()));
    write_npy(&dir.path().join("y.npy"), &Tensor::from_f32([100_000], vec![0.0; 100_000])).expect("writes");
    let e = Dataset::open(&dir.path().join("set.toml")).expect_err("floats").to_string();
    assert!(e.contains("y.npy") && e.contains("not integers"), "{e}");
}

#[test]
fn fortran_order_is_read_in_bands() {
    let dir = folder();
    // 48 MB, more than is brought to C order at a time.
    let (rows, inner) = (3000, [2usize, 1000, 2]);
    let row: usize = inner.iter().product();
    let value = |r: usize, i: usize| (r * 31 + i * 7) as f32;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let head = format!(
        "{:<117}\n",
        format!("{{'descr': '<f4', 'fortran_order': True, 'shape': ({rows}, 2, 1000, 2), }}")
    );
    bytes.extend(118u16.to_le_bytes());
    bytes.extend(head.bytes());
    for c in 0..inner[2] {
        for b in 0..inner[1] {
            for a in 0..inner[0] {
                let i = (a * inner[1] + b) * inner[2] + c;
                bytes.extend((0..rows).flat_map(|r| value(r, i).to_le_bytes()));
            }
        }
    }
    let npy = write(dir.path(), "x.npy", &bytes);
    let npz = dir.path().join("x.npz");
    archive(&npz, &[("x", &bytes)]);
    let arrays = [samebit::data::Array::open(&npy), samebit::data::Array::open_npz(&npz, "x")];
    for array in arrays.map(|a| a.expect("opens")) {
        for at in [0..2, 2998..3000, 1500..1501, 7..9, 0..rows] {
            let want: Vec<f32> = at.clone().flat_map(|r| (0..row).map(move |i| value(r, i))).collect();
            let got = array.read_rows(at.clone()).expect("reads");
            assert_eq!(got.shape(), [at.len(), 2, 1000, 2]);
            assert!(got.f32s() == want, "{at:?}");
        }
    }
}

#[test]
fn an_archive_that_promises_more_than_it_can_hold_is_refused() {
    let dir = folder();
    let (npz, npy) = (dir.path().join("x.npz"), dir.path().join("x.npy"));
    write_npy(&npy, &Tensor::from_u8([10], vec![1; 10])).expect("writes");
    let array = std::fs::read(&npy).expect("reads");
    let text = String::from_utf8_lossy(&array[10..128]).replace("(10,)", "(2000000000,)");
    let mut lie = array[..10].to_vec();
    lie.extend(&text.as_bytes()[..117]);
    lie.push(b'\n');
    archive(&npz, &[("x", &lie)]);
    let mut bytes = std::fs::read(&npz).expect("reads");
    // The directory confirms what the header says.
    let (real, claimed) = (128u32.to_le_bytes(), 2_000_000_128u32.to_le_bytes());
    let places: Vec<_> = (0..bytes.len() - 4).filter(|i| bytes[*i..*i + 4] == real).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at..at + 4].copy_from_slice(&claimed));
    std::fs::write(&npz, bytes).expect("writes");
    let e = Dataset::open(&npz).expect_err("too little").to_string();
    assert!(e.contains("cannot hold the 2000000128"), "{e}");
}

#[test]
fn the_csv_lists_a_file_once_and_others_are_counted() {
    let dir = folder();
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        picture(dir.path(), &format!("images/{name}"), 1, 1, 0);
    }
    let toml = write(
        dir.path(),
        "set.toml",
        "[dataset]\nlabels = { csv = \"l.csv\", file = \"f\", label = \"y\" }\nwhere = { s = \"e\" }\n[[input]]\nname = \"x\"\nimages = \"images\"\n",
    );
    let graph = vec![input("x", &[3, 1, 1])];
    write(dir.path(), "l.csv", "f,y,s\na.png,0,e\nb.png,0,c\ngone.png,1,e\n");
    let set = Dataset::open(&toml).expect("opens");
    assert!(
        set.notes()[0].starts_with("2 of the 4 files") && set.notes()[0].contains("c.png"),
        "{:?}",
        set.notes()
    );
    let mut frames = loader(&set, &graph, 4, 1).expect("starts");
    assert_eq!(frames.by_ref().map(|b| b.expect("reads").frames()).sum::<usize>(), 1);
    assert_eq!(frames.skipped()[0].sample, "gone.png");
    write(dir.path(), "l.csv", "f,y,s\na.png,0,e\nb.png,0,e\nc.png,0,e\nd.png,0,e\na.png,1,c\nb.png,1,e\n");
    let e = error_of(&toml, &graph);
    assert!(e.contains("b.png twice") && e.contains("lines 3 and 7"), "{e}");
    for other in ["./b.png", "x/../b.png", ".//b.png"] {
        write(dir.path(), "l.csv", format!("f,y,s\na.png,0,e\nb.png,0,e\n{other},0,e\n"));
        let e = error_of(&toml, &graph);
        assert!(e.contains(&format!("{other} twice")) && e.contains("lines 3 (there as b.png) and 4"), "{e}");
    }
    write(dir.path(), "l.csv", "f,y,s\na.png,0,e\n./b.png,0,e\nc.png,0,e\nd.png,0,e\n");
    assert_eq!(Dataset::open(&toml).expect("opens").notes(), [""; 0]);
}

#[test]
fn the_bundled_digits_open() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/quickstart");
    for (name, count) in [("calib.toml", 200), ("eval.toml", 797)] {
        let set = Dataset::open(&folder.join(name)).expect("opens");
        assert_eq!(labels(&set).len(), set.len());
        assert_eq!(set.len(), count);
        let batch = loader(&set, &vec![input("image", &[1, 8, 8])], 5, 1).expect("starts").next();
        let values = batch.expect("one").expect("reads");
        assert!(values.inputs[0].f32s().iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn arrays_of_16_bit_integers_go_to_inputs_of_their_type() {
    let dir = folder();
    let npy = dir.path().join("x.npy");
    let stored = [
        Tensor::from_i16([2, 2], vec![-32768, -1, 1, 32767]),
        Tensor::from_u16([2, 2], vec![0, 1, 32768, 65535]),
    ];
    for (codes, other) in [(&stored[0], DType::U16), (&stored[1], DType::I16)] {
        write_npy(&npy, codes).expect("writes");
        let graph = |dtype| vec![("x".into(), TensorType::new(dtype, [Dim::Batch(1), Dim::Fixed(2)]))];
        let set = Dataset::open(&npy).expect("opens");
        let mut batches = loader(&set, &graph(codes.dtype()), 2, 1).expect("starts");
        assert_eq!(batches.next().expect("one").expect("reads").inputs[0], *codes);
        let e = error_of(&npy, &graph(other));
        assert!(e.contains(&format!("the graph takes {other}")), "{e}");
    }
}
