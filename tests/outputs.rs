//! What is written where: devices, pipes and links stay what they are, and no output replaces another file of the call.

#![cfg(unix)]

mod support;

use samebit::data::write_npy;
use samebit::tensor::Tensor;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use support::binary::{bytes, command, json, refused, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/digits.onnx");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/quickstart/eval.toml");

fn graph(dir: &Path) -> Vec<u8> {
    let path = dir.join("reference.g");
    json(0, &["import", MODEL, "-o", text(&path)]);
    bytes(&path)
}

#[test]
fn pipes_and_devices_are_written_to_and_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let fifo = dir.path().join("fifo");
    let want = graph(dir.path());
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("runs").success());
    for option in ["-o", "--json"] {
        let reader = Command::new("cat").arg(&fifo).stdout(Stdio::piped()).spawn().expect("starts");
        let other = dir.path().join("other");
        let (o, j) = if option == "-o" { (&fifo, &other) } else { (&other, &fifo) };
        let status = command(&["import", MODEL, "-o", text(o), "--json", text(j)]).status().expect("runs");
        assert!(status.success());
        let got = reader.wait_with_output().expect("ends").stdout;
        if option == "-o" {
            assert!(got == want, "the pipe got {} bytes of {}", got.len(), want.len());
        } else {
            let v: serde_json::Value = serde_json::from_slice(&got).expect("is JSON");
            assert_eq!(v["stage"], "float");
        }
        assert!(std::fs::metadata(&fifo).expect("is there").file_type().is_fifo(), "{option}");
    }
    let own = dir.path().join("stdout");
    // A link of our own, so that a fault costs the machine nothing.
    symlink("/proc/self/fd/1", &own).expect("links");
    if Path::new("/proc/self/fd").is_dir() {
        let o = command(&["import", MODEL, "-o", text(&own)]).output().expect("runs");
        assert!(o.status.success() && o.stdout == want, "{}", String::from_utf8_lossy(&o.stderr));
        assert!(own.is_symlink());
        // A file that the shell has opened keeps what it holds.
        let log = dir.path().join("log");
        let status = Command::new("sh")
            .args(["-c", "echo before; \"$0\" import \"$2\" -o \"$1\""])
            .args([env!("CARGO_BIN_EXE_samebit"), text(&own), MODEL])
            .stdout(std::fs::File::create(&log).expect("creates"))
            .status();
        assert!(status.expect("runs").success());
        assert!(bytes(&log).starts_with(b"before\n") && bytes(&log).len() > want.len());
    }
}

#[test]
fn links_are_followed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    symlink("real", &link).expect("links");
    for _ in 0..2 {
        json(0, &["import", MODEL, "-o", text(&link)]);
        assert!(link.is_symlink());
        assert_eq!(bytes(&real), graph(dir.path()));
    }
    let o = command(&["print", MODEL, "--json", text(&link)]).output().expect("runs");
    assert!(o.status.success() && link.is_symlink() && bytes(&real).starts_with(b"{"));
}

#[test]
fn no_output_replaces_another_file_of_the_call_however_it_is_spelled() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    std::fs::create_dir(d.join("sub")).expect("makes");
    std::fs::copy(MODEL, d.join("m.onnx")).expect("copies");
    symlink("m.onnx", d.join("m.link")).expect("links");
    write_npy(&d.join("x.npy"), &Tensor::from_f32([2, 1, 8, 8], vec![1.0; 128])).expect("writes");
    let before: Vec<Vec<u8>> = ["m.onnx", "x.npy"].iter().map(|f| bytes(&d.join(f))).collect();
    let at = |name: &str| d.join(name).display().to_string();
    let (m, x, a) = (at("m.onnx"), at("x.npy"), at("a"));
    let (dot, round, link) = (at("./a"), at("sub/../a"), at("m.link"));
    let cases: [(&[&str], &str); 12] = [
        (&["import", &m, "-o", &a, "--json", &dot], "--json"),
        (&["import", &m, "-o", &a, "--json", &round], "--json"),
        (&["import", &m, "-o", &link], "-o"),
        (&["import", &m, "-o", &a, "--json", &link], "--json"),
        (&["print", &link, "--json", &m], "--json"),
        (&["eval", &m, "--data", &x, "--partial", &a, "--json", &dot], "--json"),
        (&["eval", &m, "--data", &x, "--json", &x], "--json"),
        (&["eval", &m, "--data", &x, "--partial", &link], "--partial"),
        (&["calibrate", &m, "--data", &x, "--stats", &a, "-o", &round], "-o"),
        (&["calibrate", &m, "--data", &x, "-o", &link], "-o"),
        (&["run", &m, "--input", &x, "--json", &x], "--json"),
        (&["merge", &x, "-o", &a, "--json", &x], "--json"),
    ];
    for (args, option) in cases {
        refused(args, &[option]);
        assert!(!d.join("a").exists(), "{args:?}");
        let after: Vec<Vec<u8>> = ["m.onnx", "x.npy"].iter().map(|f| bytes(&d.join(f))).collect();
        assert!(before == after, "{args:?} changed an input");
    }
}

#[test]
fn outputs_that_cannot_be_written_are_seen_before_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let folder = text(d);
    // A data set that is not there would be met first otherwise.
    let gone = d.join("gone.npy");
    for option in ["--json", "--partial"] {
        let args = ["eval", MODEL, "--data", text(&gone), option, folder];
        refused(&args, &[option, "is a folder"]);
        refused(
            &["eval", MODEL, "--data", text(&gone), option, "/nothing/there"],
            &[option, "no folder /nothing"],
        );
    }
    refused(&["calibrate", MODEL, "--data", text(&gone), "-o", folder], &["-o", "is a folder"]);
}

#[test]
fn files_that_are_read_again_are_no_pipes() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let part = d.join("p");
    json(0, &["eval", MODEL, "--data", DATA, "--limit", "5", "--partial", text(&part)]);
    for (args, option) in [
        (vec!["merge", text(&part), "-o"], "-o -"),
        (vec!["eval", MODEL, "--data", DATA, "--limit", "5", "--partial"], "--partial -"),
        (vec!["calibrate", MODEL, "--data", DATA, "--shard", "0/2", "--stats"], "--stats -"),
    ] {
        let mut child = command(&[&args[..], &["-"]].concat());
        let o = child.current_dir(d).output().expect("runs");
        let said = String::from_utf8_lossy(&o.stderr);
        assert!(
            o.status.code() == Some(2) && said.contains(option) && said.contains("standard output"),
            "{said}"
        );
        assert!(!d.join("-").exists(), "{option}");
        refused(&[&args[..], &["/dev/null"]].concat(), &["/dev/null", "regular file"]);
    }
    assert!(Path::new("/dev/null").metadata().expect("is there").file_type().is_char_device());
}

#[test]
fn a_minus_is_standard_output_for_every_file_and_no_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let d = dir.path();
    let (graph, file) = (d.join("g"), d.join("file"));
    let calibrate = ["calibrate", MODEL, "--data", DATA, "--limit", "20"];
    json(0, &[&calibrate[..], &["-o", text(&graph)]].concat());
    let g = text(&graph);
    for args in [
        vec!["import", MODEL],
        vec!["save-onnx", g],
        vec!["save-ranges", g, "--form", "aimet"],
        calibrate.to_vec(),
    ] {
        json(0, &[&args[..], &["-o", text(&file)]].concat());
        let run = |stdout: Stdio| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_samebit"));
            let child = child.args(&args).args(["-o", "-", "--device", "cpu"]).current_dir(d);
            child
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .expect("runs")
                .wait_with_output()
                .expect("ends")
        };
        let o = run(Stdio::piped());
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        assert_eq!(o.status.code(), Some(0), "{args:?}: {said}");
        assert!(o.stdout == bytes(&file), "{args:?}: not the bytes of the file");
        assert!(said.contains("standard output") || args[0] == "calibrate", "{args:?}: {said}");
        if cfg!(target_os = "linux") && args[0] != "save-ranges" {
            let terminal =
                std::fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx").expect("opens");
            let o = run(terminal.into());
            let said = String::from_utf8_lossy(&o.stderr).into_owned();
            assert!(o.status.code() == Some(2) && said.contains("is a terminal"), "{args:?}: {said}");
        }
    }
    let x = d.join("x.npy");
    write_npy(&x, &Tensor::from_f32([1, 1, 8, 8], vec![1.0; 64])).expect("writes");
    for args in [
        vec!["check", MODEL, "--out"],
        vec!["profile", MODEL, "--data", DATA, "--out"],
        vec!["run", MODEL, "--input", text(&x), "--dump"],
        vec!["quickstart", "--out"],
    ] {
        let o = command(&[&args[..], &["-"]].concat()).current_dir(d).output().expect("runs");
        let said = String::from_utf8_lossy(&o.stderr);
        assert!(o.status.code() == Some(2) && said.contains("give a folder"), "{args:?}: {said}");
    }
    assert!(!d.join("-").exists());
    // Before the work, not after it: even the model is not looked at.
    let (file, below) = (d.join("file"), d.join("file/below"));
    std::fs::write(&file, "mine").expect("writes");
    for (to, why) in [(text(&file), "is a file"), (text(&below), "no folder"), ("/dev/null", "is a file")] {
        for args in [
            vec!["run", "no model", "--input", text(&x), "--dump"],
            vec!["check", "no model", "--out"],
            vec!["fingerprint", "probes", "no model", "-o"],
            vec!["quickstart", "--out"],
        ] {
            refused(&[&args[..], &[to]].concat(), &[to, why]);
        }
    }
    assert_eq!(bytes(&file), b"mine");
}

#[test]
fn a_model_that_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (fifo, out) = (dir.path().join("fifo"), dir.path().join("g"));
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("runs").success());
    for path in [text(&fifo), "/dev/zero", text(dir.path())] {
        for args in [vec!["import", path, "-o", text(&out)], vec!["print", path]] {
            refused(&args, &[path, "regular file"]);
        }
    }
    // Sparse: three gigabytes that take no room.
    let large = dir.path().join("large.onnx");
    std::fs::File::create(&large).and_then(|f| f.set_len(3 << 30)).expect("makes");
    let begin = std::time::Instant::now();
    refused(&["import", text(&large), "-o", text(&out)], &["3221225472 bytes", "external data"]);
    assert!(begin.elapsed().as_secs() < 3, "it was read");
    assert!(!out.exists());
}
