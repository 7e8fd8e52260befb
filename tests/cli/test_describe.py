"""``septa describe``: a preset, a recipe file and a model as table, drawing and JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def test_the_papers_net_in_three_forms(septa, tmp_path):
    svg, path = tmp_path / "deep" / "net.svg", tmp_path / "net.json"
    output = septa("describe", "paper", "--size", "572x572", "--svg", svg, "--json", path).stdout
    assert "572x572 -> 388x388" in output
    assert "parameters: 31,030,658" in output
    assert "margin: 92 pixels on each side" in output
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts["parameters"] == 31_030_658
    assert (facts["input_size"], facts["output_size"], facts["margin"]) == ([572, 572], [388, 388], 92)
    assert sum(layer["parameters"] for layer in facts["layers"]) == facts["parameters"]
    root = ElementTree.parse(svg).getroot()
    assert root.tag == f"{SVG}svg"
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert {"64", "1024"} <= words


def test_a_recipe_file_with_settings_on_top(septa, tmp_path):
    (tmp_path / "mine.yaml").write_text("net: {width: 4, depth: 2, norm: none}\nsampling: {patch: [40, 48]}\n")
    options = ["--set", "width=3", "--channels", 3, "--classes", 4, "--json", tmp_path / "a.json"]
    output = septa("describe", tmp_path / "mine.yaml", *options).stdout
    assert "U-Net, depth 2, width 3, 40x48 -> 40x48" in output
    facts = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (facts["in_channels"], facts["out_channels"], facts["input_size"]) == (3, 4, [40, 48])
    # Each level has weights and biases of two convolutions in each path and of an up-convolution; then comes the head.
    w = 3
    block = [(3, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)]
    block += [(4 * w, 2 * w), (2 * w, 2 * w), (2 * w, w), (w, w)]
    expected = sum((9 * i + 1) * o for i, o in block)
    expected += (4 * 4 * w + 1) * 2 * w + (4 * 2 * w + 1) * w + (w + 1) * 4
    assert facts["parameters"] == expected


def test_a_model_by_its_own_patch(septa, fault, model, tmp_path):
    from septa.model import Model

    output = septa("describe", model, "--json", tmp_path / "a.json").stdout
    assert "U-Net, depth 2, width 4, 64x64 -> 64x64" in output
    facts = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    net = Model.load(model).net
    assert facts["parameters"] == sum(parameter.numel() for parameter in net.parameters())
    assert (facts["halo"], facts["multiple"]) == (24, 4)
    assert fault("describe", model, "--set", "width=2").startswith(
        "--set: this option does not apply to a model such as "
    )


def test_names_and_settings_that_are_wrong(fault, tmp_path):
    (tmp_path / "other.yaml").write_text("net: {wdith: 3}\n")
    for arguments, start in (
        (["nowhere.yaml"], "nowhere.yaml: the file cannot be read (No such file or directory). "),
        (["nowhere.septa"], "nowhere.septa: the file cannot be read (no such file or directory). Give a .septa file"),
        (["other.yaml"], "other.yaml: net.wdith is not a setting (did you mean net.width?). "),
        (["octt"], "preset 'octt': there is no preset with this name. Choose one of carvana, "),
        (["oct", "--size", "0x64"], "--size: the value must be HEIGHTxWIDTH in pixels, got 0x64. "),
        (["oct", "--channels", "0"], "--channels: the value must be a whole number of at least 1, got 0. "),
    ):
        assert fault("describe", *arguments, "--svg", "a.svg", "--json", "a.json", cwd=tmp_path).startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == ["other.yaml"]
