"""The manifests of deploy/ against the app and against each other: names, ports, settings, versions, metrics."""

import ipaddress
import json
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from pneumonet import __version__, settings
from pneumonet.settings import Settings
from pneumonet.web import bodies, held, metrics, server, service, tidying, uploads
from tests.deploy.dockerfile import ROOT, stages
from tests.deploy.test_capacity import MEMORY
from tests.reading.test_memory import MOST_BYTES_A_PIXEL as BYTES_A_PIXEL

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
YAML_FILES = [path for path in FILES if path.suffix in (".yaml", ".yml")]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
CLUSTER = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
AZURE = yaml.safe_load((DEPLOY / "azure.yaml").read_text())["properties"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "pneumonet.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
PORT, PROXY_PORT = 7860, 8080
PASSED_OVER = "max_fails=2 fail_timeout=10s"
Environment = dict[str, str]


def _of_cluster(kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"] for item in CLUSTER if item["kind"] == kind}


def _container(deployment: str) -> dict[str, Any]:
    [container] = _of_cluster("Deployment")[deployment]["template"]["spec"]["containers"]
    return dict(container)


def _listed(pairs: list[dict[str, str]]) -> Environment:
    return {pair["name"]: pair["value"] for pair in pairs}


def _azure() -> dict[str, dict[str, Any]]:
    return {container["name"]: container["properties"] for container in AZURE["containers"]}


def _environments() -> dict[str, tuple[list[Environment], Environment]]:
    """Each manifest's environments of its workers and of its proxy, with the images' own."""
    app, proxy = stages()["app"].environment, stages()["proxy"].environment
    in_azure = {name: _listed(container.get("environmentVariables", [])) for name, container in _azure().items()}
    return {
        "compose": ([app | COMPOSE["app"]["environment"]], proxy | COMPOSE["nginx"]["environment"]),
        "kubernetes": (
            [app | _listed(_container("pneumonet")["env"])],
            proxy | _listed(_container("pneumonet-proxy")["env"]),
        ),
        "azure": ([app | in_azure["app-1"], app | in_azure["app-2"]], proxy | in_azure["nginx"]),
    }


MANIFESTS = list(_environments())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_a_yaml_file_parses(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    known = set(re.findall(r"PNEUMONET_[A-Z_]+", Path(settings.__file__).read_text()))
    known |= set(stages()["proxy"].environment) | {"NGINX_"}
    assert set(re.findall(r"\b(?:PNEUMONET|NGINX)_[A-Z_]*", path.read_text())) - known - {"PNEUMONET_"} == set()


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_app_and_the_proxy_agree(manifest: str) -> None:
    workers, proxy = _environments()[manifest]
    for worker in workers:
        asked = Settings.from_environment(worker)
        assert proxy["PNEUMONET_ROOT_PATH"] == asked.root_path
        assert int(proxy["PNEUMONET_MAX_UPLOAD_MB"]) * 1_000_000 == asked.max_upload_bytes
        as_base64 = asked.max_upload_bytes * 4 / 3 + 64 * 1024
        assert int(proxy["NGINX_MAX_BODY"].removesuffix("m")) * 2**20 > as_base64
        # One deadline for a film, its picture and its report: nginx hears of the answer in this time, whatever it is.
        assert int(proxy["NGINX_READ_SECONDS"]) > asked.request_seconds
        assert proxy["NGINX_LISTEN"] == str(PROXY_PORT)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_proxy_finds_its_workers_and_they_find_redis(manifest: str) -> None:
    workers, proxy = _environments()[manifest]
    redis = {urlsplit(str(Settings.from_environment(worker).redis_url)) for worker in workers}
    hosts, ports = {url.hostname for url in redis}, {url.port for url in redis}
    assert ports == {6379}
    if manifest == "azure":
        addresses = {f"127.0.0.1:{worker['PNEUMONET_PORT']}" for worker in workers}
        assert set(re.findall(rf"server ([\d.:]+) {PASSED_OVER};", proxy["NGINX_WORKERS"])) == addresses
        assert len(addresses) == 2
        assert hosts == {"127.0.0.1"}
    elif manifest == "compose":
        assert proxy["NGINX_WORKERS"] == f"server app:{PORT} resolve {PASSED_OVER};"
        # Docker's own DNS, in each of its networks; without `resolve` a new worker would be found at a restart only.
        assert proxy["NGINX_RESOLVER"].startswith("resolver 127.0.0.11 valid=")
        assert proxy["NGINX_HASH"] == "", "a consistent hash goes round where one name has several addresses"
        assert hosts <= COMPOSE.keys()
    else:
        name = re.fullmatch(
            rf"server ([\w-]+)\.default\.svc\.cluster\.local service=(\w+) resolve {PASSED_OVER};",
            proxy["NGINX_WORKERS"],
        )
        assert name is not None
        service = _of_cluster("Service")[name[1]]
        assert service["clusterIP"] == "None"
        assert [(port["name"], port["port"]) for port in service["ports"]] == [(name[2], PORT)]
        assert proxy["NGINX_HASH"] == "consistent"
        assert hosts <= _of_cluster("Service").keys()


def test_every_image_has_a_version() -> None:
    images = [stage.base for stage in stages().values()]
    images += [service["image"] for service in COMPOSE.values()]
    images += [
        container["image"]
        for deployment in _of_cluster("Deployment").values()
        for kind in ("initContainers", "containers")
        for container in deployment["template"]["spec"].get(kind, [])
    ]
    images += [container["image"] for container in _azure().values()]
    assert len(images) > 10
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w-]+)?$", image), image
        if "pneumonet" in image:
            assert image.endswith(f":{__version__}")
    assert len({image for image in images if image.startswith("redis")}) == 1


def test_ports_are_the_same_everywhere() -> None:
    app, proxy = stages()["app"], stages()["proxy"]
    assert app.all("EXPOSE") == [app.environment["PNEUMONET_PORT"]] == [str(PORT)]
    assert proxy.all("EXPOSE") == [proxy.environment["NGINX_LISTEN"]] == [str(PROXY_PORT)]
    assert COMPOSE["nginx"]["ports"] == [f"{PROXY_PORT}:{PROXY_PORT}"]
    assert "ports" not in COMPOSE["app"], "nobody goes past the proxy"
    assert [port["containerPort"] for port in _container("pneumonet")["ports"]] == [PORT]
    assert [port["containerPort"] for port in _container("pneumonet-proxy")["ports"]] == [PROXY_PORT]
    assert [port["port"] for port in AZURE["ipAddress"]["ports"]] == [PROXY_PORT]
    assert [name for name, container in _azure().items() if "ports" in container] == ["nginx"]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    [discovered] = scraped[0]["dns_sd_configs"]
    assert (discovered["names"], discovered["port"]) == (["app"], PORT)


def test_the_cluster_s_names_meet() -> None:
    labels = {}
    for name, spec in _of_cluster("Deployment").items():
        labels[name] = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels[name].items()
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        for name, spec in _of_cluster(kind).items():
            selector = spec.get("podSelector", spec.get("selector"))
            selector = selector.get("matchLabels", selector)
            assert any(selector.items() <= there.items() for there in labels.values()), (kind, name)
    [scaler] = _of_cluster("HorizontalPodAutoscaler").values()
    scaled = _of_cluster("Deployment")[scaler["scaleTargetRef"]["name"]]
    assert "replicas" not in scaled, "it would undo the autoscaler's at each apply"
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_nothing_runs_as_root_or_may_become_it() -> None:
    users = {name: stage.all("USER")[-1] for name, stage in stages().items() if name != "build"}
    assert all(user.isdecimal() and user != "0" for user in users.values())
    for deployment, image in (("pneumonet", "app"), ("pneumonet-proxy", "proxy"), ("pneumonet-redis", None)):
        pod = _of_cluster("Deployment")[deployment]["template"]["spec"]["securityContext"]
        assert pod["runAsNonRoot"]
        assert image is None or pod["runAsUser"] == int(users[image])
        own = _container(deployment)["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert own["capabilities"] == {"drop": ["ALL"]}
    for name in ("app", "nginx", "redis"):
        assert COMPOSE[name]["read_only"]
        assert COMPOSE[name]["cap_drop"] == ["ALL"]


def test_only_the_proxy_s_network_is_believed() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    [subnet] = [config["subnet"] for config in compose["networks"]["inside"]["ipam"]["config"]]
    assert COMPOSE["app"]["environment"]["FORWARDED_ALLOW_IPS"] == subnet
    assert _listed(_container("pneumonet")["env"])["FORWARDED_ALLOW_IPS"] == "*"
    # Every address is believed there, so who may speak to the port is all that counts.
    policy = _of_cluster("NetworkPolicy")["pneumonet"]
    assert policy["policyTypes"] == ["Ingress"]
    [rule] = policy["ingress"]
    proxy, scraper = rule["from"]
    assert proxy == {"podSelector": {"matchLabels": {"app": "pneumonet-proxy"}}}, "of this namespace alone"
    assert scraper["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert scraper["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert rule["ports"] == [{"port": PORT}]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_proxy_believes_nobody_about_an_address_until_it_is_told_whom(manifest: str) -> None:
    _, proxy = _environments()[manifest]
    assert ipaddress.ip_network(proxy["NGINX_TRUSTED_PROXY"]) == ipaddress.ip_network("127.0.0.1")


def test_visitors_reach_one_port_of_the_cluster_s_proxy() -> None:
    policy = _of_cluster("NetworkPolicy")["pneumonet-proxy"]
    assert policy["podSelector"] == {"matchLabels": {"app": "pneumonet-proxy"}}
    assert policy["policyTypes"] == ["Ingress"]
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"port": PROXY_PORT}]
    assert all(ipaddress.ip_network(peer["ipBlock"]["cidr"]) for peer in rule["from"])


def test_every_pod_has_a_network_policy_of_its_own() -> None:
    guarded = [spec["podSelector"]["matchLabels"] for spec in _of_cluster("NetworkPolicy").values()]
    pods = [spec["template"]["metadata"]["labels"] for spec in _of_cluster("Deployment").values()]
    assert sorted(label["app"] for label in guarded) == sorted(label["app"] for label in pods)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_worker_computes_with_as_many_threads_as_it_has_cores(manifest: str) -> None:
    cores = {
        "compose": COMPOSE["app"]["deploy"]["resources"]["limits"]["cpus"],
        "kubernetes": _container("pneumonet")["resources"]["limits"]["cpu"],
        "azure": _azure()["app-1"]["resources"]["requests"]["cpu"],
    }
    workers, _ = _environments()[manifest]
    assert {int(worker["OMP_NUM_THREADS"]) for worker in workers} == {math.ceil(float(cores[manifest]))}


def test_resolving_again_needs_a_newer_nginx_than_1_27_2() -> None:
    version = re.fullmatch(r"nginx:(\d+)\.(\d+)\.(\d+)-alpine", stages()["proxy"].base)
    assert version is not None
    assert tuple(map(int, version.groups())) >= (1, 27, 3)


def test_a_worker_that_stops_has_time_to_end_its_films() -> None:
    needed = Settings().request_seconds + server._SHUTDOWN_SECONDS
    pod = _of_cluster("Deployment")["pneumonet"]["template"]["spec"]
    slept = int(_container("pneumonet")["lifecycle"]["preStop"]["exec"]["command"][1])
    # The answer of a name that nginx has is valid for so long, and then the pod is out of it.
    known = re.search(r"valid=(\d+)s", _listed(_container("pneumonet-proxy")["env"])["NGINX_RESOLVER"])
    assert known is not None
    assert slept > int(known[1])
    assert pod["terminationGracePeriodSeconds"] > slept + needed
    assert int(COMPOSE["app"]["stop_grace_period"].removesuffix("s")) > needed


@pytest.mark.parametrize("manifest", ["compose", "kubernetes"])
def test_what_is_pulled_and_converted_lies_on_a_volume_and_not_in_memory(manifest: str) -> None:
    workers, _ = _environments()[manifest]
    if manifest == "compose":
        mounted = {volume.split(":")[1] for volume in COMPOSE["app"]["volumes"]}
    else:
        volumes = _of_cluster("Deployment")["pneumonet"]["template"]["spec"]["volumes"]
        on_disk = {volume["name"] for volume in volumes if volume["emptyDir"].get("medium") != "Memory"}
        mounted = {m["mountPath"] for m in _container("pneumonet")["volumeMounts"] if m["name"] in on_disk}
    for worker in workers:
        for name in ("HF_HOME", "PNEUMONET_CACHE_DIR"):
            assert any(Path(worker[name]).is_relative_to(place) for place in mounted), name


def test_the_image_s_own_conversion_is_copied_to_the_volume_that_hides_it() -> None:
    pod = _of_cluster("Deployment")["pneumonet"]["template"]["spec"]
    [first] = pod["initContainers"]
    [app] = pod["containers"]
    [volume] = first["volumeMounts"]
    place = stages()["app"].environment["PNEUMONET_CACHE_DIR"]
    assert {"name": volume["name"], "mountPath": place} in app["volumeMounts"]
    assert first["command"][2:] == [f"{place}/.", volume["mountPath"]]
    assert first["image"] == app["image"]
    assert first["securityContext"] == app["securityContext"]


def test_a_worker_s_memory_is_the_sum_of_what_visitors_can_fill() -> None:
    readme = (DEPLOY / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (\d+) \|$", readme, re.MULTILINE))
    most, decoded = Settings().max_pixels, service._AT_ONCE + service._PREVIEWS_AT_ONCE + service._REPORTS_AT_ONCE
    assert Settings().decoding_pixels == most, "one of the largest at a time"
    expected = {
        "one film of 40 MP": BYTES_A_PIXEL * most,
        "six decoded films": 4 * most * decoded,
        "films that pages hold": held._HELD_BYTES,
        "uploads": uploads._HELD_BYTES,
        "overlays": uploads._HELD_BYTES,
        "bodies that arrive": bodies._IN_FLIGHT_BYTES,
        "answers that nobody": tidying._UNREAD_BYTES,
    }
    told = {what: int(value) for row, value in rows.items() for what in expected if row.startswith(what)}
    assert told == {what: round(value / 1e6) for what, value in expected.items()}
    [base] = [int(value) for row, value in rows.items() if row.startswith("code, weights")]
    assert int(rows["sum"]) == base + sum(told.values())
    measured = re.search(
        r"peak memory of the server[^|]*\|[^|]*\| (\d+) MiB", (ROOT / "docs/performance.md").read_text()
    )
    assert measured is not None
    assert int(measured[1]) * 2**20 <= base * 1e6
    limits = {
        int(COMPOSE["app"]["deploy"]["resources"]["limits"]["memory"].removesuffix("g")) * 2**30,
        int(_container("pneumonet")["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30,
        *(_azure()[name]["resources"]["requests"]["memoryInGB"] * 1e9 for name in ("app-1", "app-2")),
    }
    assert min(limits) > int(rows["sum"]) * 1e6
    assert f"{MEMORY} GiB ({round(MEMORY * 2**30 / 1e6)} MB)" in readme


def _expressions() -> list[str]:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return queries + [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def test_every_metric_on_the_dashboard_and_in_the_alerts_is_scraped() -> None:
    found = set(re.findall(r"pneumonet_[a-z_]+", " ".join(_expressions())))
    scraped = set(metrics.NAMES)
    assert {re.sub(r"_(bucket|sum|count)$", "", name) if name not in scraped else name for name in found} <= scraped
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    assert [name for name in metrics.NAMES if name not in shown] == []


def test_every_label_on_the_dashboard_and_in_the_alerts_exists() -> None:
    exposed = metrics.Metrics().registry._collector_to_names
    known = {label for metric in exposed for label in getattr(metric, "_labelnames", ())} | {"le"}
    grouped = {
        label.strip()
        for expr in _expressions()
        for by in re.findall(r"by \(([^)]*)\)", expr)
        for label in by.split(",")
    }
    matched = {label for expr in _expressions() for label in re.findall(r"[{,]\s*(\w+)\s*(?:=~?|!~?)", expr)} - {"job"}
    assert grouped
    assert matched
    assert grouped | matched <= known


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    [source] = provisioned["datasources"]
    assert urlsplit(source["url"]).hostname in COMPOSE
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/pneumonet.yaml").read_text())["providers"]
    mounted = [volume.split(":")[:2] for volume in COMPOSE["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounted
    for source_path, _ in mounted:
        assert (DEPLOY / source_path).is_dir()


def test_the_readme_lists_every_file() -> None:
    readme = (DEPLOY / "README.md").read_text()
    names = {path.relative_to(DEPLOY).parts[0] for path in FILES} - {"README.md"}
    assert [name for name in sorted(names) if f"`{name}" not in readme] == []
