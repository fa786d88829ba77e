# A GPU image with MRGC's agent in it. It starts from an image that has the NVIDIA driver already.
#
#   packer init deploy/images
#   packer build -var package=target/dist-packages/mrgc-agent-0.1.0-1.x86_64.rpm deploy/images

packer {
  required_version = ">= 1.9.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "package" {
  type        = string
  description = "The agent's .rpm or .deb, whichever the base image installs."
}

variable "configuration" {
  type        = string
  default     = ""
  description = "Replaces /etc/mrgc/agent.toml. It sets neither instance.id nor address: EC2 says them."
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "Where the image is built."
}

variable "copy_to_regions" {
  type        = list(string)
  default     = ["us-east-2", "us-west-2"]
  description = "Where it is copied to: wherever the fleet runs."
}

variable "base_image_name" {
  type        = string
  default     = "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) *"
  description = "Amazon's newest image by this name is built upon. For the .deb: the one of Ubuntu 22.04."
}

variable "ssh_username" {
  type        = string
  default     = "ec2-user"
  description = "For Ubuntu's: ubuntu."
}

variable "instance_type" {
  type        = string
  default     = "g5.xlarge"
  description = "With a GPU, so that the agent is seen to find it; m6i.large is enough for the image itself."
}

variable "subnet_id" {
  type        = string
  default     = null
  description = "Where the builder runs; by default, in the default VPC."
}

data "amazon-ami" "base" {
  region      = var.region
  owners      = ["amazon"]
  most_recent = true
  filters = {
    name                = var.base_image_name
    architecture        = "x86_64"
    root-device-type    = "ebs"
    virtualization-type = "hvm"
  }
}

source "amazon-ebs" "agent" {
  region        = var.region
  ami_regions   = var.copy_to_regions
  ami_name      = "mrgc-agent-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  source_ami    = data.amazon-ami.base.id
  instance_type = var.instance_type
  subnet_id     = var.subnet_id
  ssh_username  = var.ssh_username
  encrypt_boot  = true
  imds_support  = "v2.0"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  tags = {
    Name       = "mrgc-agent"
    "mrgc:base" = "{{ .SourceAMIName }}"
  }
}

build {
  sources = ["source.amazon-ebs.agent"]

  provisioner "file" {
    sources     = compact([var.package, var.configuration, "${path.root}/install.sh"])
    destination = "/tmp/"
  }

  provisioner "shell" {
    inline = [
      "sudo sh /tmp/install.sh /tmp/${basename(var.package)} ${var.configuration == "" ? "" : "/tmp/${basename(var.configuration)}"}",
      "rm -f /tmp/install.sh /tmp/${basename(var.package)} ${var.configuration == "" ? "" : "/tmp/${basename(var.configuration)}"}",
      # What the agent will see. On a builder without a GPU it says so, and the image is right all the same.
      "mrgc-agent check || true",
    ]
  }
}
