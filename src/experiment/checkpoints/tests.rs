//! Checkpoints written, listed, pruned and damaged.

use serde_json::json;

use super::*;

fn tensors(seed: f32) -> Vec<NamedTensor> {
    vec![
        NamedTensor {
            name: "z.lora_A".to_string(),
            shape: vec![2, 3],
            data: Numbers::F32(vec![
                seed,
                -0.0,
                f32::MIN_POSITIVE,
                f32::NAN,
                1e-45,
                f32::INFINITY,
            ]),
        },
        NamedTensor {
            name: "m.codes".to_string(),
            shape: vec![3],
            data: Numbers::U8(vec![0, 255, seed as u8]),
        },
        NamedTensor {
            name: "a.scalar".to_string(),
            shape: vec![],
            data: Numbers::F32(vec![0.1 * seed]),
        },
    ]
}

fn bits(tensors: &[NamedTensor]) -> Vec<(&str, &[usize], Vec<u32>)> {
    let bits = |t: &NamedTensor| match &t.data {
        Numbers::F32(values) => values.iter().map(|v| v.to_bits()).collect(),
        Numbers::U8(codes) => codes.iter().map(|c| u32::from(*c)).collect(),
    };
    tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice(), bits(t)))
        .collect()
}

fn steps(checkpoints: &[Checkpoint]) -> Vec<usize> {
    checkpoints.iter().map(|c| c.step).collect()
}

#[test]
fn the_mode_of_every_file_follows_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let saved = save(dir.path(), 1, &tensors(1.5), &json!({})).unwrap();
    for file in [TENSORS, STATE, MANIFEST] {
        assert_eq!(mode(&saved.path.join(file)), mode(&plain), "{file}");
    }
}

#[test]
fn what_is_saved_comes_back_bit_for_bit_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let state = json!({"step": u64::MAX, "loss": 1.0 / 3.0, "order": [3, 1, 2]});
    let saved = save(dir.path(), 123, &tensors(1.5), &state).unwrap();
    assert_eq!(saved.path, dir.path().join("step-000123"));
    let (read, read_state) = load(&saved.path).unwrap();
    assert_eq!(bits(&read), bits(&tensors(1.5)));
    assert_eq!(read_state, state);
}

#[test]
fn every_kind_of_tear_is_recognised_and_skipped() {
    type Harm = fn(&Path);
    let harms: [Harm; 6] = [
        |p| fs::remove_file(p.join(MANIFEST)).unwrap(),
        |p| fs::write(p.join(MANIFEST), "{\"format\": 1, \"st").unwrap(),
        |p| fs::remove_file(p.join(STATE)).unwrap(),
        |p| {
            let file = File::options().write(true).open(p.join(TENSORS)).unwrap();
            file.set_len(40).unwrap();
        },
        |p| {
            let mut bytes = fs::read(p.join(TENSORS)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(p.join(TENSORS), bytes).unwrap();
        },
        |p| {
            fs::remove_dir_all(p).unwrap();
            fs::create_dir(p).unwrap();
        },
    ];
    for (i, harm) in harms.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 10, &tensors(1.0), &json!(1)).unwrap();
        let newer = save(dir.path(), 20, &tensors(2.0), &json!(2)).unwrap();
        assert_eq!(newest_whole(dir.path()).unwrap().unwrap().step, 20);
        harm(&newer.path);
        let text = load(&newer.path).unwrap_err().to_string();
        assert!(
            text.contains("step-000020: not a whole checkpoint"),
            "{i}: {text}"
        );
        assert_eq!(newest_whole(dir.path()).unwrap().unwrap().step, 10, "{i}");
        // Training comes by again: the torn one is replaced.
        save(dir.path(), 20, &tensors(3.0), &json!(3)).unwrap();
        assert_eq!(load(&newer.path).unwrap().1, json!(3));
    }
}

#[test]
fn a_half_written_checkpoint_has_no_name_and_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let torn = dir.path().join(".step-000030.tmp-99999999-1");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join(TENSORS), "half").unwrap();
    assert_eq!(newest_whole(dir.path()).unwrap(), None);
    save(dir.path(), 30, &tensors(1.0), &json!({})).unwrap();
    assert!(!torn.exists());
    let failed = write(dir.path(), 40, |temp| {
        fsx::write(&temp.join("a"), b"1")?;
        Err(CheckpointError::Fs(FsError::new(
            "write",
            temp.join("b"),
            io::Error::from_raw_os_error(libc::ENOSPC),
        )))
    });
    // Named as the user knows it.
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("step-000040/b: cannot write"), "{text}");
    assert!(!text.contains(".tmp-"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn pruning_takes_the_oldest_and_never_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    for step in [5, 10, 100, 1_000_000] {
        save(dir.path(), step, &tensors(1.0), &json!(step)).unwrap();
    }
    fs::remove_file(dir.path().join("step-000010").join(STATE)).unwrap();
    fs::create_dir(dir.path().join("step-best")).unwrap();
    assert_eq!(steps(&list(dir.path()).unwrap()), [5, 100, 1_000_000]);
    assert_eq!(steps(&prune(dir.path(), 2).unwrap()), [5, 10]);
    assert_eq!(steps(&list(dir.path()).unwrap()), [100, 1_000_000]);
    assert_eq!(steps(&prune(dir.path(), 0).unwrap()), [100]);
    assert!(prune(dir.path(), 5).unwrap().is_empty());
    assert!(dir.path().join("step-best").exists());
    assert!(prune(&dir.path().join("none"), 2).unwrap().is_empty());
}

#[test]
fn a_checkpoint_that_cannot_be_removed_is_swept_later() {
    let dir = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        save(dir.path(), step, &tensors(1.0), &json!(step)).unwrap();
    }
    // Busy, as a directory with an open file is on NFS.
    let busy = dir.path().join("step-000001/busy");
    fs::create_dir(&busy).unwrap();
    let mount = |program: &str, args: &[&str], place: &Path| {
        let mut command = std::process::Command::new(program);
        command.args(args).arg(place);
        let output = command.output();
        output.is_ok_and(|output| output.status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "tmpfs"], &busy) {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    }
    let pruned = prune(dir.path(), 1).map_err(|e| e.to_string());
    let names = || -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    let left = names();
    // Before anything can fail: a mount outlives the test.
    for name in &left {
        mount("umount", &["-l"], &dir.path().join(name).join("busy"));
    }
    assert_eq!(pruned.map(|removed| steps(&removed)), Ok(vec![1]));
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(steps(&list(dir.path()).unwrap()), [2]);
    save(dir.path(), 3, &tensors(1.0), &json!(3)).unwrap();
    let mut left = names();
    left.sort();
    assert_eq!(left, ["step-000002", "step-000003"]);
}

#[test]
fn going_back_removes_what_came_later() {
    let dir = tempfile::tempdir().unwrap();
    for step in [5, 10, 15, 20] {
        save(dir.path(), step, &tensors(1.0), &json!(step)).unwrap();
    }
    fs::remove_file(dir.path().join("step-000020").join(MANIFEST)).unwrap();
    remove_after(dir.path(), 10).unwrap();
    assert_eq!(steps(&named_steps(dir.path()).unwrap()), [5, 10]);
    remove_after(&dir.path().join("none"), 1).unwrap();
}

#[test]
fn a_full_disk_keeps_the_older_checkpoint() {
    let Some(disk) = fsx::tests::small_disk::SmallDisk::mount("128k") else {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    save(disk.path(), 1, &tensors(1.0), &json!({})).unwrap();
    let big = NamedTensor {
        name: "big".to_string(),
        shape: vec![100_000],
        data: Numbers::F32(vec![1.0; 100_000]),
    };
    let text = save(disk.path(), 2, &[big], &json!({}))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("step-000002: cannot write: no space left"),
        "{text}"
    );
    assert!(text.contains("400.0 kB needed, "), "{text}");
    assert!(!text.contains("0 B available"), "{text}");
    assert_eq!(newest_whole(disk.path()).unwrap().unwrap().step, 1);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1);
}

#[test]
fn a_shape_that_does_not_fit_its_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bad = tensors(1.0);
    bad[0].shape = vec![7];
    assert!(matches!(
        save(dir.path(), 1, &bad, &json!({})),
        Err(CheckpointError::Encode { .. })
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
