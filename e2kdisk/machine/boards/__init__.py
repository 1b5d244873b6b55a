"""Address maps, device trees and boot protocols; more data than code."""
