"""A recorded report with its plots, sound as it stands; its figures are made up."""

from pathlib import Path

import pytest

from dragoman.core.report import Report

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def report_home() -> Path:
    """The data folder that the recorded report's artifact paths are relative to."""
    return FIXTURES / "report_home"


@pytest.fixture(scope="session")
def audit_report() -> Report:
    """Five claims of five statuses, ten pieces of evidence, two plots."""
    return Report.model_validate_json((FIXTURES / "report.json").read_bytes())
